"""A file that outgrows its limit is two things; what is larger than anything that somebody writes was not meant to be here."""
import tree

LIMIT = 400
# File: its own limit and why.
ALLOWED = {
}
BYTES = 128 << 10  # of any file


def main():
    findings = []
    sources = tree.files('.h', '.c', '.cpp', '.py')
    for path in sources:
        count = sum(1 for _ in tree.lines(path))
        limit, _ = ALLOWED.get(str(path), (LIMIT, ''))
        if count > limit:
            findings.append(f'{path}: {count} lines, the limit is {limit}')
    everything = tree.files()
    for path in everything:
        if (size := (tree.TOP / path).stat().st_size) > BYTES:
            findings.append(f'{path}: {size} bytes, the limit is {BYTES}')
    tree.finish(findings, len(everything))


if __name__ == '__main__':
    main()
