"""Pickles read as data: what a pickle asks to be called or built is written down, and nothing is called.

Python's own unpickler calls whatever a file names. This one walks the same operations, with plain values,
lists and dictionaries as they are, and with an :class:`Inert` note where an object would have been made.
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

# Operations whose argument, as pickletools reads it, is what they push.
LITERALS = (
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
)
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
IGNORED = frozenset(["PROTO", "FRAME"])
MARK = object()


@dataclass
class Inert:
    """An object that a pickle describes and nobody made.

    Attributes:
        name: Of its class or function, ``"module.name"``.
        given: What that would have been called with; None for the class or function itself.
        state: What the object would have been filled with.
        items: What would have been put into it by key.
    """

    name: str
    given: tuple | None = None
    state: Any = None
    items: dict = field(default_factory=dict)


def read_inert(
    data: bytes,
    *,
    call: Callable[[str, tuple], Any] = Inert,
    stored: Callable[[Any], Any] = lambda identity: Inert("persistent", (identity,)),
) -> Any:
    """What a pickle describes.

    Args:
        data: The pickle.
        call: From the name of a function or class and its arguments to what stands for the result.
        stored: From the identity of something kept outside of the pickle to what stands for it.

    Raises:
        ValueError: If the pickle is damaged, or asks for what no file of tensors needs.
    """
    machine = _Machine(call, stored)
    try:
        for operation, argument, _ in pickletools.genops(data):
            if operation.name == "STOP":
                return machine.stack[-1]
            machine.step(operation.name, argument)
    except (LookupError, AttributeError, TypeError, StopIteration) as error:
        raise ValueError(f"the pickle is damaged ({type(error).__name__})") from error
    raise ValueError("the pickle has no end")


class _Machine:
    """The stack of a pickle, and what it has numbered for later."""

    def __init__(self, call: Callable[[str, tuple], Any], stored: Callable[[Any], Any]) -> None:
        self.call, self.stored = call, stored
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        if name in LITERALS:
            self.stack.append(argument)
        elif name in CONSTANTS:
            self.stack.append(CONSTANTS[name])
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[int(argument)] = self.stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[int(argument)])
        elif name == "GLOBAL":
            self.stack.append(Inert(argument.replace(" ", ".")))
        elif name not in IGNORED:
            action = getattr(self, f"_{name.lower()}", None)
            if action is None:
                raise ValueError(f"the pickle asks for {name}, which no file of tensors needs")
            action()

    def _since_mark(self) -> list:
        """Take what is above the last mark, and the mark."""
        at = len(self.stack) - 1 - next(i for i, x in enumerate(reversed(self.stack)) if x is MARK)
        above = self.stack[at + 1 :]
        del self.stack[at:]
        return above

    def _take(self, count: int) -> list:
        if len(self.stack) < count:
            raise ValueError("the pickle takes what it has not put there")
        taken = self.stack[-count:]
        del self.stack[-count:]
        return taken

    def _mark(self) -> None:
        self.stack.append(MARK)

    def _pop(self) -> None:
        self.stack.pop()

    def _pop_mark(self) -> None:
        self._since_mark()

    def _dup(self) -> None:
        self.stack.append(self.stack[-1])

    def _memoize(self) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _empty_tuple(self) -> None:
        self.stack.append(())

    def _tuple1(self) -> None:
        self.stack.append(tuple(self._take(1)))

    def _tuple2(self) -> None:
        self.stack.append(tuple(self._take(2)))

    def _tuple3(self) -> None:
        self.stack.append(tuple(self._take(3)))

    def _tuple(self) -> None:
        self.stack.append(tuple(self._since_mark()))

    def _empty_list(self) -> None:
        self.stack.append([])

    def _list(self) -> None:
        self.stack.append(self._since_mark())

    def _append(self) -> None:
        (value,) = self._take(1)
        self._extend([value])

    def _appends(self) -> None:
        self._extend(self._since_mark())

    def _extend(self, values: list) -> None:
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(values)

    # what a set holds is no tensor by name: only the stack is kept right
    def _empty_set(self) -> None:
        self.stack.append(Inert("builtins.set", ()))

    def _additems(self) -> None:
        self._since_mark()

    def _frozenset(self) -> None:
        self._since_mark()
        self._empty_set()

    def _empty_dict(self) -> None:
        self.stack.append({})

    def _dict(self) -> None:
        self.stack.append(_pairs(self._since_mark()))

    def _setitem(self) -> None:
        self._update(self._take(2))

    def _setitems(self) -> None:
        self._update(self._since_mark())

    def _update(self, flat: list) -> None:
        into = self.stack[-1]
        (into.items if isinstance(into, Inert) else into).update(_pairs(flat))

    def _stack_global(self) -> None:
        module, name = self._take(2)
        self.stack.append(Inert(f"{module}.{name}"))

    def _reduce(self) -> None:
        function, given = self._take(2)
        if not (isinstance(function, Inert) and isinstance(given, tuple)):
            raise ValueError("the pickle calls what is no function")
        # what a call would have returned may be called in its turn, and has no name
        name = function.name if function.given is None else f"{function.name}(...)"
        self.stack.append(self.call(name, given))

    _newobj = _reduce

    def _newobj_ex(self) -> None:
        self._take(1)
        self._reduce()

    def _build(self) -> None:
        (state,) = self._take(1)
        if isinstance(self.stack[-1], Inert):
            self.stack[-1].state = state

    def _binpersid(self) -> None:
        (identity,) = self._take(1)
        self.stack.append(self.stored(identity))


def _pairs(flat: list) -> dict:
    """A dictionary of keys and values in turn; a key that cannot be one is left out with its value."""
    return {k: v for k, v in zip(flat[::2], flat[1::2]) if isinstance(k, (str, int, float, bool, bytes))}
