"""All suites of the project, from which users choose by name."""

from vone_jax import names
from vone_jax.certification.measured import SUITES as CERTIFICATES
from vone_jax.evaluation.attacked import SUITES as ATTACKS
from vone_jax.evaluation.clean import SUITES as CLEAN
from vone_jax.evaluation.corrupted import SUITES as CORRUPTIONS
from vone_jax.evaluation.fourier_map import SUITES as FOURIER
from vone_jax.evaluation.masking import SUITES as MASKING
from vone_jax.evaluation.minimal import SUITES as MINIMAL
from vone_jax.evaluation.suites import Suite
from vone_jax.neurophysiology.measured import SUITES as PHYSIOLOGY
from vone_jax.perception.critical_bands import SUITES as CRITICAL_BANDS
from vone_jax.perception.geometry import SUITES as GEOMETRY
from vone_jax.perception.metamers import SUITES as METAMERS
from vone_jax.perception.psychophysics import SUITES as PSYCHOPHYSICS

SUITES: dict[str, Suite] = {
    **CLEAN,
    **ATTACKS,
    **MASKING,
    **MINIMAL,
    **CERTIFICATES,
    **CORRUPTIONS,
    **PSYCHOPHYSICS,
    **CRITICAL_BANDS,
    **FOURIER,
    **GEOMETRY,
    **METAMERS,
    **PHYSIOLOGY,
}
# Suites that stand for several.
GROUPS = {
    "quick": ("clean", "linf", "corruptions_quick", "v1"),
    "all": ("clean", *names.NORMS, "corruptions", "v1"),
}
