# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Recipes: from arguments to a finished thing, over data, training, evaluation and deployment."""

from .teacher import TeacherRecipe, train_teacher
from .training import TrainingRecipe, train

__all__ = ["TeacherRecipe", "TrainingRecipe", "train", "train_teacher"]
