"""What pyproject.toml cannot say: the wheel holds configs/ and results/ within fewshot/."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["fewshot*"]), "fewshot.configs", "fewshot.results"],
    package_dir={"fewshot.configs": "configs", "fewshot.results": "results"},
)
