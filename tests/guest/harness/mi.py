"""Results of gdb's machine interface as Python's own (gdb manual, "GDB/MI Output Syntax"): a tuple is a dict, a list a
list; of `name=value` in a list the names are left out."""
import re

from .errors import HarnessError
from .gdb import unquote

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_NAME = re.compile(r'([\w-]+)=')


def parse(text: str) -> dict:
    """`name=value,name=value`: what follows the class of a record."""
    found, rest = _results(text, '')
    if rest:
        raise HarnessError(f'no result of gdb/MI: {rest[:200]}')
    return found


def _value(text: str):
    if found := _STRING.match(text):
        return unquote(found.group()), text[found.end():]
    if text[:1] == '{':
        return _results(text[1:], '}')
    if text[:1] != '[':
        raise HarnessError(f'no value of gdb/MI: {text[:200]}')
    text, values = text[1:], []
    while text[:1] != ']':
        name = _NAME.match(text)
        value, text = _value(text[name.end():] if name else text)
        values.append(value)
        text = text.removeprefix(',')
    return values, text[1:]


def _results(text: str, end: str):
    results = {}
    while text and text[:1] != (end or None):
        name = _NAME.match(text)
        if not name:
            raise HarnessError(f'no result of gdb/MI: {text[:200]}')
        results[name.group(1)], text = _value(text[name.end():])
        text = text.removeprefix(',')
    return results, text[len(end):]
