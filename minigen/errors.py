"""The one exception for faults that a user can mend."""


class UserError(ValueError):
    """Something the user can mend. The message is one line: what is wrong, and what to do."""
