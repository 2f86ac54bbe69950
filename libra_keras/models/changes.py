"""What may change on a detector after it was built: its heads' settings, its classes' names."""

import dataclasses


class FollowsChanges:
    """Mixin, before `keras.Model`, of detectors: changes are checked, and take effect.

    A compiled function keeps the settings that it was traced with; here Keras traces it anew if
    `detector.box_head.settings` or that of another head has been replaced.
    """

    @property
    def class_names(self):
        """List of one name for each class, or `None`."""
        return self._class_names

    @class_names.setter
    def class_names(self, names):
        if isinstance(names, str):
            raise TypeError(f"`class_names` must be a list of strings. Received: {names!r}")
        names = None if names is None else list(names)
        if names is not None and len(set(names)) < len(names):
            raise ValueError(f"`class_names` must hold each name once. Received: {names}")
        if self.built:  # else the heads are not there
            self.check_names(names)
        self._class_names = names

    def check_names(self, names):
        """Raises a ValueError unless there is one name for each class, or none at all."""
        if names is not None and len(names) != self.num_classes:
            raise ValueError(
                f"`class_names` must have one name for each of {self.num_classes} classes. "
                f"Received: {len(names)} names"
            )

    @property
    def max_detections(self):
        """Most detections of an image that the detector gives out; it may be set."""
        return getattr(self._last_settings(), self._limit_name())

    @max_detections.setter
    def max_detections(self, number):
        if isinstance(number, bool) or number != int(number) or number < 1:
            raise ValueError(f"`max_detections` must be a positive int. Received: {number!r}")
        changes = {self._limit_name(): int(number)}
        settings = self._last_settings()
        if hasattr(settings, "pre_nms_test"):  # a level may give as many
            changes["pre_nms_test"] = max(int(number), settings.pre_nms_test)
        self.heads()[-1].settings = dataclasses.replace(settings, **changes)

    def _last_settings(self):
        return self.heads()[-1].settings

    def _limit_name(self):
        return "max_detections" if hasattr(self._last_settings(), "max_detections") else "post_nms"

    def make_train_function(self, force=False):
        return super().make_train_function(self.has_changed("train") or force)

    def make_test_function(self, force=False):
        return super().make_test_function(self.has_changed("test") or force)

    def make_predict_function(self, force=False):
        return super().make_predict_function(self.has_changed("predict") or force)

    def has_changed(self, kind):
        """Whether settings have changed since this was asked for the same `kind` of function."""
        now = tuple(getattr(head, "settings", None) for head in self.heads())
        before = self.__dict__.get(f"_traced_{kind}", now)
        object.__setattr__(self, f"_traced_{kind}", now)  # past Keras' tracking
        return before != now
