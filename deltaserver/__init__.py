"""deltaserver: serve and train Δ-sGDML force fields for non-covalent complexes."""

from deltaserver.model.composite import CompositeEvaluation, CompositeModel
from deltaserver.model.sgdml import Evaluation, SGDMLModel

__all__ = ["CompositeEvaluation", "CompositeModel", "Evaluation", "SGDMLModel", "__version__"]
__version__ = "0.1.0"
