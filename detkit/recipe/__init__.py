"""Load, check and build recipes. Only this package uses dotted keys of recipes.

Example::

    plan = recipe.load(["recipe=yolo_csp", "data.batch_size=8"])  # reads the file and the arguments
    recipe.check(plan)  # imports the constructors and checks their arguments
    parts = recipe.build(plan)  # builds data, model, loss, ...
"""

from detkit.recipe.building import BuiltParts, build, build_model, image_hw_of, instantiate, resize_of, without_demo
from detkit.recipe.checking import check, check_names
from detkit.recipe.loading import TRUSTED, from_dict, load, load_recipe
from detkit.recipe.plan import Change, Plan, Settings
from detkit.recipe.show import console, list_changes, list_keys, list_recipes

__all__ = [
    "TRUSTED",
    "BuiltParts",
    "Change",
    "Plan",
    "Settings",
    "build",
    "build_model",
    "check",
    "check_names",
    "console",
    "from_dict",
    "image_hw_of",
    "instantiate",
    "list_changes",
    "list_keys",
    "list_recipes",
    "load",
    "load_recipe",
    "resize_of",
    "without_demo",
]
