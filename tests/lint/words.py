"""Words that have no place in the repository: paths of one machine, hosts that a mirror or a registry may replace,
numbers of a tracker that the reader does not have, and code that admits to be unfinished."""
import re

import tree

# (pattern, why). A bracket around one letter keeps this file from finding itself.
FORBIDDEN = (
    (r'(^|[^\w.}])/(wor[k]|far[m])/', 'a path of one machine'),
    (r'(^|[^\w.}])/tm[p]/(?!exogdb-)', 'a path of one machine: ask for a temporary one'),
    (r'(^|[^\w.}])/(hom[e]|roo[t])/\w', "a path in somebody's home"),
    (r'\b\w+\.debian\.or[g]\b', "a mirror: take it from the machine's own apt sources"),
    (r'\b(pypi\.or[g]|crates\.i[o]|npmjs\.(or[g]|co[m])|proxy\.golan[g])', 'a registry'),
    (r'(?i)\b(issue|ticket)s? #?\d+\b', 'a number of a tracker'),
    (r'\b(FIXM[E]|XX[X]|TOD[O])\b', 'unfinished'),
    (r'(?i)\bnot implemente[d]\b|\bunimplemente[d]\b', 'unfinished: a capability that is absent is unreachable'),
)
# File: pattern's index and why it may be there.
ALLOWED = {
}


def main():
    findings, checked = [], 0
    patterns = [(re.compile(pattern), why) for pattern, why in FORBIDDEN]
    for path in tree.files():
        checked += 1
        for number, text in tree.lines(path):
            for index, (pattern, why) in enumerate(patterns):
                found = pattern.search(text)
                if found and ALLOWED.get(str(path), (None,))[0] != index:
                    findings.append(f'{path}:{number}: {found.group(0).strip()!r}: {why}')
    tree.finish(findings, checked)


if __name__ == '__main__':
    main()
