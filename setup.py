"""What pyproject.toml cannot say: the wheel holds the folder configs/ as fewshot/configs."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["fewshot*"]), "fewshot.configs"],
    package_dir={"fewshot.configs": "configs"},
)
