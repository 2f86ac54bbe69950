"""Learning rates that differ between the parts of a model."""


class RateMultipliers:
    """Mixin, before a Keras optimizer, that multiplies the learning rate of parts of the model.

    `update_step` asks for `self.own_rate(variable, learning_rate)`.

    Args:
        rate_multipliers: dict from the name of a part to a float >= 0, or `None`. Our detectors
            know `"backbone"`, `"neck"` and their heads by the names of the constructor's
            arguments. For other models a name is a piece of variables' paths between slashes: a
            layer's name. What no name covers has the full rate; of several the longest counts.
        **kwargs: of the optimizer.

    Raises:
        ValueError: if a multiplier is negative; while building, if a name covers nothing.
    """

    def __init__(self, *args, rate_multipliers=None, **kwargs):
        super().__init__(*args, **kwargs)
        multipliers = dict(rate_multipliers or {})
        wrong = {name: value for name, value in multipliers.items() if not value >= 0}
        if wrong:
            raise ValueError(f"`rate_multipliers` must not be negative. Received: {wrong}")
        self.rate_multipliers = {name: float(value) for name, value in multipliers.items()}
        self._parts = None

    def set_parts(self, parts):
        """Says which variables the names mean, before the optimizer is built.

        Args:
            parts: dict from names of parts to lists of variables.
        """
        self._parts = {self._var_key(v): name for name, owned in parts.items() for v in owned}

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        names = [self._name_of(variable) for variable in variables]
        unused = sorted(set(self.rate_multipliers) - set(names))
        if unused:
            parts = (self._parts or {}).values()
            known = sorted({*parts} or {v.path for v in variables})
            raise ValueError(
                f"`rate_multipliers` names {', '.join(unused)}, which has no trainable variable. "
                f"There are: {', '.join(known[:10])}"
            )
        self._own_multipliers = [self.rate_multipliers.get(name, 1.0) for name in names]

    def _name_of(self, variable):
        if self._parts is not None:
            return self._parts.get(self._var_key(variable))
        if not self.rate_multipliers:
            return None
        fitting = [n for n in self.rate_multipliers if f"/{n}/" in f"/{variable.path}/"]
        return max(fitting, key=len, default=None)

    def own_rate(self, variable, learning_rate):
        """Returns the learning rate of `variable`."""
        multiplier = self._own_multipliers[self._get_variable_index(variable)]
        return learning_rate if multiplier == 1.0 else learning_rate * multiplier

    def get_config(self):
        return {**super().get_config(), "rate_multipliers": dict(self.rate_multipliers) or None}
