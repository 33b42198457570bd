"""ctest's JUnit report, with the test cases inside each test program counted one by one."""
import dataclasses
import pathlib
import re
import xml.etree.ElementTree


@dataclasses.dataclass(frozen=True)
class Counts:
    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other):
        return Counts(self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped)

    def __str__(self):
        return f'{self.passed} passed, {self.failed} failed, {self.skipped} skipped'


@dataclasses.dataclass(frozen=True)
class Result:
    name: str
    counts: Counts
    output: str

    @property
    def why_skipped(self) -> str:
        """The line in which the program names what it lacks."""
        named = [line for line in self.output.splitlines() if 'skipped' in line]
        return named[-1].strip() if named else 'it does not say why'


def _doctest(output: str):
    found = re.search(r'\[doctest\] test cases: +(\d+) \| +(\d+) passed \| +(\d+) failed', output)
    return Counts(int(found.group(2)), int(found.group(3))) if found else None


def _unittest(output: str):
    ran = re.search(r'^Ran (\d+) tests? in', output, re.M)
    verdict = re.search(r'^(?:OK|FAILED)(?: \((.*)\))?$', output, re.M)
    if not ran or not verdict:
        return None
    details = dict(item.split('=') for item in (verdict.group(1) or '').split(', ') if '=' in item)
    failed = int(details.get('failures', 0)) + int(details.get('errors', 0))
    skipped = int(details.get('skipped', 0))
    # An error in setUpClass is counted, but no test of that class ran.
    return Counts(max(0, int(ran.group(1)) - failed - skipped), failed, skipped)


def counted(status: str, output: str) -> Counts:
    """`status` is ctest's word for the whole program, which has the last say."""
    if status in ('notrun', 'disabled'):
        return Counts(skipped=1)
    inside = _doctest(output) or _unittest(output)
    if status == 'run':
        return inside if inside and inside.passed and not inside.failed else Counts(passed=1)
    return inside if inside and inside.failed else (inside or Counts()) + Counts(failed=1)


def read(report: pathlib.Path) -> list:
    """[] when there is no report."""
    if not report.exists():
        return []
    results = []
    for case in xml.etree.ElementTree.parse(report).getroot().iter('testcase'):
        output = case.findtext('system-out') or ''
        status = case.get('status')
        # "notrun" is also what ctest says of a program that it cannot find: a failure, not a skip.
        if status == 'notrun' and 'SKIP_RETURN_CODE' not in ''.join(
                element.get('message', '') for element in case.iter('skipped')):
            status = 'fail'
        results.append(Result(case.get('name'), counted(status, output), output))
    return results
