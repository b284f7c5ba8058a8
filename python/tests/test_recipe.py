"""The conda recipe is rendered."""

from __future__ import annotations

import re

import pytest

from .conftest import ROOT

rattler_build = pytest.importorskip("rattler_build")

#: What conda-forge sets for all recipes.
VARIANTS = {
    "c_compiler": ["gcc"],
    "c_compiler_version": ["14"],
    "c_stdlib": ["sysroot"],
    "c_stdlib_version": ["2.17"],
    "rust_compiler": ["rust"],
}


def test_the_recipe_renders() -> None:
    recipe = rattler_build.Stage0Recipe.from_file(str(ROOT / "python" / "recipe.yaml"))
    (variant,) = recipe.render(rattler_build.VariantConfig(VARIANTS))
    rendered = variant.recipe() if callable(variant.recipe) else variant.recipe
    facts = rendered.to_dict()
    version = re.search(r'^version = "(.*)"$', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)
    assert version and facts["package"] == {"name": "mandelbox", "version": version[1]}
    assert any(text.startswith("sysroot") for text in facts["requirements"]["build"])
