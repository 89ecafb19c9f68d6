"""What a run on Ray keeps in the object store.

Values have names. An actor, the index, knows which object holds the value of each, and holds small values itself. The others
are put into the object store of the machine where they were made by an actor there, a keeper, so that they outlive the task
that made them. Once something was lost with a machine, all that its makers made is as if it had never been there.
"""

from __future__ import annotations

import time
import uuid
from typing import Any, NamedTuple

# Bytes up to which the index holds a value itself.
_SMALL = 1 << 12
# Seconds in which a task does not ask again what is new.
_FRESH = 0.01


class _Held(NamedTuple):
    """What holds a value."""

    # The value, or a list with the reference of its object, or `None` where it is gone.
    holder: Any
    # Of objects, the keeper.
    keeper: Any = None
    # Of whom the value is.
    maker: Any = None
    # The number of the change by which it came.
    change: int = 0


class Index:
    """What holds the value of each name; an actor."""

    def __init__(self):
        self._held = {}
        self._changes = 0
        self._makers_of_lost = set()

    def note(self, name, held):
        """Is told of a value; returns what is known of it now."""
        self._changes += 1
        self._held[name] = held._replace(change=self._changes)
        return self._held[name]

    def remove(self, name, change):
        """Forgets a value, unless another one came since that change."""
        if name in self._held and self._held[name].change == change:
            self.note(name, _Held(None))

    def lost(self, keeper):
        """Is told that the objects of a keeper are nowhere any more."""
        makers = {held.maker for held in self._held.values() if held.keeper == keeper}
        self._makers_of_lost |= makers
        for name in [name for name, held in self._held.items() if held.maker in makers]:
            self.note(name, _Held(None))

    def since(self, change):
        """What came and went since a change, and the number of the last one."""
        return {name: held for name, held in self._held.items() if held.change > change}, self._changes

    def makers_of_lost(self):
        """Who made what was lost since this was asked."""
        found, self._makers_of_lost = self._makers_of_lost, set()
        return found


class Keeper:
    """Puts values into the object store of its machine; an actor."""

    def __init__(self):
        # One that is started again has nothing of what the one before had.
        self._name = uuid.uuid4().hex

    def keep(self, value):
        """A list with the reference of the object, and the name of the keeper."""
        import ray

        return [ray.put(value)], self._name


class Actors:
    """The index, and the keeper of every machine."""

    def __init__(self, ray):
        here = ray.get_runtime_context().get_node_id()
        # With the driver the index lives and dies.
        self.index = _actor(ray, Index, here)
        machines = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
        self.keepers = {machine: _actor(ray, Keeper, machine, max_restarts=-1) for machine in {here, *machines}}
        self._default = self.keepers[here]

    def keeper(self, machine):
        """That of a machine; of one that came later the driver's."""
        return self.keepers.get(machine, self._default)

    def end(self, ray):
        """Ends all, and what they keep goes."""
        for actor in [self.index, *self.keepers.values()]:
            ray.kill(actor)


def _actor(ray, kind, machine, **options):
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    place = NodeAffinitySchedulingStrategy(machine, soft=False)
    return ray.remote(kind).options(num_cpus=0, scheduling_strategy=place, **options).remote()


class Objects:
    """Values by name, as a task or the driver sees them. `maker` says of whom they are."""

    def __init__(self, ray, actors, maker=None):
        self._ray, self._index, self._maker = ray, actors.index, maker
        self._keeper = actors.keeper(ray.get_runtime_context().get_node_id())
        self._held = {}
        self._change, self._asked = 0, None

    def read(self, name):
        """The value, or `None`."""
        while self.has(name):
            held = self._held[name]
            if held.keeper is None:
                return held.holder
            try:
                return self._ray.get(held.holder[0])
            except self._ray.exceptions.ObjectLostError:
                self._ray.get(self._index.lost.remote(held.keeper))
                self._refresh()
        return None

    def has(self, name):
        """Whether there is such a value."""
        if name not in self._held and (self._asked is None or time.monotonic() - self._asked >= _FRESH):
            self._refresh()
        return name in self._held

    def names(self, start):
        """The names that begin so."""
        self._refresh()
        return sorted(name for name in self._held if name.startswith(start))

    def write(self, name, value):
        """Keeps a value."""
        holder, keeper = value, None
        if len(value) > _SMALL:
            holder, keeper = self._ray.get(self._keeper.keep.remote(value))
        held = _Held(holder, keeper, self._maker)
        self._held[name] = self._ray.get(self._index.note.remote(name, held))

    def remove(self, name):
        """Removes the value that was seen last, unless it is gone."""
        held = self._held.pop(name, None)
        if held is not None:
            self._ray.get(self._index.remove.remote(name, held.change))

    def _refresh(self):
        news, self._change = self._ray.get(self._index.since.remote(self._change))
        self._asked = time.monotonic()
        for name, held in news.items():
            if held.holder is None:
                self._held.pop(name, None)
            else:
                self._held[name] = held
