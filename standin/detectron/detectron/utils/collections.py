"""A dictionary of options."""

from __future__ import absolute_import, division, print_function


class AttrDict(dict):
    """A dict whose keys are attributes too, and which can be frozen together with all that it holds."""

    def __getattr__(self, key):
        try:
            return self[key]
        except KeyError:
            raise AttributeError(key)

    def __setattr__(self, key, value):
        if self.is_immutable():
            raise AttributeError('cannot set %s: the options are frozen' % key)
        self[key] = value

    def immutable(self, frozen):
        """Freeze or thaw this dictionary and the ones inside."""
        self.__dict__['frozen'] = frozen  # past __setattr__, and kept by copy and YAML
        for value in self.values():
            if isinstance(value, AttrDict):
                value.immutable(frozen)

    def is_immutable(self):
        return self.__dict__.get('frozen', False)
