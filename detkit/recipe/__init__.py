"""Recipes: load, check, build. The only package that knows YAML and dotted paths.

Example::

    plan = recipe.load(["recipe=yolo_csp", "data.batch_size=8"])  # file and arguments; imports nothing heavy
    recipe.check(plan)  # every argument against its constructor; imports them, touches no data
    parts = recipe.build(plan)  # data, model, loss, ...
"""

from detkit.recipe.building import Parts, build, build_model, image_hw_of, instantiate, resize_of, without_demo
from detkit.recipe.checking import check, check_names
from detkit.recipe.loading import TRUSTED, from_dict, load, load_recipe
from detkit.recipe.overrides import parse
from detkit.recipe.plan import Change, Plan, Settings
from detkit.recipe.show import console, list_changes, list_keys, list_recipes

__all__ = [
    "TRUSTED",
    "Change",
    "Parts",
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
    "parse",
    "resize_of",
    "without_demo",
]
