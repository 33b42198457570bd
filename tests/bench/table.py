"""Rounds of two servers, and what is printed of them."""
import dataclasses
import statistics


@dataclasses.dataclass
class Series:
    """One row: figures of both servers, round by round. Seconds where `speed` is empty."""
    what: str
    peer_name: str
    goal: float = None
    cost: bool = False  # the ratio is our time in peers' times, the goal its upper bound; else peer's time in ours
    amount: float = 0  # of `speed`, done in each round's time
    speed: str = ''  # "MiB/s"
    remark: str = ''
    ours: list = dataclasses.field(default_factory=list)
    peers: list = dataclasses.field(default_factory=list)

    def add(self, ours: float, peers: float):
        self.ours.append(ours)
        self.peers.append(peers)

    def ratios(self) -> list:
        return [ours / peers if self.cost else peers / ours for ours, peers in zip(self.ours, self.peers)]

    def figure(self, seconds: float) -> str:
        if self.speed:
            return f'{self.amount / seconds:,.0f} {self.speed}'
        for unit, factor in (('s', 1), ('ms', 1e3), ('µs', 1e6)):
            if seconds * factor >= 1:
                break
        return f'{seconds * factor:.3g} {unit}'

    def goal_text(self) -> str:
        if self.goal is None:
            return '–'
        return f'≤ {self.goal:g}×' if self.cost else f'≥ {self.goal:g}×'

    def verdict(self) -> str:
        if self.goal is None:
            return '–'
        median = statistics.median(self.ratios())
        reached = median <= self.goal if self.cost else median >= self.goal
        return 'yes' if reached else f'no, {max(median / self.goal, self.goal / median):.2f} times off'

    def cells(self) -> list:
        ratios = self.ratios()
        return [self.what + (f' ({self.remark})' if self.remark else ''), self.peer_name,
                self.figure(statistics.median(self.ours)), self.figure(statistics.median(self.peers)),
                f'{statistics.median(ratios):.2f}×', f'{min(ratios):.2f}–{max(ratios):.2f}', self.goal_text(),
                self.verdict()]


HEAD = ['what', 'against', 'exogdb', 'peer', 'ratio', 'min–max', 'goal', 'reached']


def markdown(head: list, rows: list) -> str:
    """Columns as wide as their widest cell, so that it reads as it is, too."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = [[cell.ljust(width) for cell, width in zip(row, widths)] for row in [head, *rows]]
    lines.insert(1, ['-' * width for width in widths])
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)
