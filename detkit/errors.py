"""Errors that a user can mend. Scripts print them as one line, without a traceback."""


class DetkitError(Exception):
    """Base of all errors that the user can mend; anything else is a bug and keeps its traceback."""

    exit_code = 1  # of a script that ends with this error


class RecipeError(DetkitError):
    """A recipe, or an override of it, cannot be used as it stands."""

    exit_code = 78


class DataError(DetkitError):
    """A data set, an annotation or an image cannot be used as it stands."""

    exit_code = 65


class CheckpointError(DetkitError):
    """A checkpoint or a detector file cannot be read, or does not fit."""

    exit_code = 66


class TrainingError(DetkitError):
    """Training cannot go on as it stands, e.g. because the loss is not finite."""

    exit_code = 70


class StorageError(DetkitError):
    """A file cannot be written: the disk is full, the folder is read-only, a quota is used up."""

    exit_code = 74
