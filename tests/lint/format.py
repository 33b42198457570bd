"""Every source file is as clang-format leaves it. The version is fixed: others format differently."""
import shutil
import subprocess
import sys

import tree

PROGRAM = 'clang-format-19'


def main():
    if not shutil.which(PROGRAM):
        print(f'skipped, the machine lacks: {PROGRAM}')
        sys.exit(77)
    sources = tree.files('.h', '.c', '.cpp')
    result = subprocess.run([PROGRAM, '--dry-run', '-Werror', *map(str, sources)], cwd=tree.TOP, capture_output=True,
                            text=True, check=False)
    findings = [line for line in result.stderr.splitlines() if 'error:' in line]
    if result.returncode and not findings:
        findings = [result.stderr]
    tree.finish(findings, len(sources))


if __name__ == '__main__':
    main()
