"""Option files: YAML in, typed and strict options out."""

from basicsr.options.loading import load_options, save_options
from basicsr.options.schema import Network, Options, TestOptions, TrainOptions

__all__ = ["Network", "Options", "TestOptions", "TrainOptions", "load_options", "save_options"]
