"""Models of tables: raw rows in, classes or numbers out."""

from gpunn.tables.model import TableModel
from gpunn.tables.recipe import Recipe
from gpunn.tables.training import Fitted, fit_table

__all__ = ["Fitted", "Recipe", "TableModel", "fit_table"]
