"""What rnnpipe itself registers, through the same hooks as anyone's plugin.

Values are `"module:attribute"` strings, imported when a name is used: listing the names costs no torch.
"""

from __future__ import annotations

from rnnpipe.hookspecs import hookimpl


@hookimpl
def register_datasets() -> dict[str, str]:
    return {
        "binary-addition": "rnnpipe.data.synthetic.binary_addition:BinaryAddition",
        "counting-ones": "rnnpipe.data.synthetic.counting_ones:CountingOnes",
        "csv": "rnnpipe.data.series:CsvSeries",
        "npy": "rnnpipe.data.series:NpySeries",
        "parallel": "rnnpipe.data.parallel:Parallel",
        "patterns": "rnnpipe.data.synthetic.patterns:Patterns",
        "python-docs": "rnnpipe.data.python_docs:PythonDocs",
        "sine": "rnnpipe.data.synthetic.sine:Sine",
        "sine-windows": "rnnpipe.data.synthetic.sine:SineWindows",
        "text-files": "rnnpipe.data.text_files:TextFiles",
        "variable-sum": "rnnpipe.data.synthetic.variable_sum:VariableSum",
    }


@hookimpl
def register_cleaners() -> dict[str, str]:
    return {
        "ascii-words": "rnnpipe.text.cleaning:ascii_words",
        "unicode-words": "rnnpipe.text.unicode_words:unicode_words",
        "none": "rnnpipe.text.cleaning:none",
    }


@hookimpl
def register_tokenizers() -> dict[str, str]:
    return {
        "bpe": "rnnpipe.text.bpe:bpe",
        "characters": "rnnpipe.text.tokenizing:characters",
        "unigram": "rnnpipe.text.unigram:unigram",
        "whitespace": "rnnpipe.text.tokenizing:whitespace",
    }


@hookimpl
def register_cells() -> dict[str, str]:
    return {
        "cifg": "rnnpipe.cells.cifg:CIFG",
        "echo-state": "rnnpipe.cells.echo_state:EchoState",
        "elman": "rnnpipe.cells.elman:Elman",
        "fully-recurrent": "rnnpipe.cells.fully_recurrent:FullyRecurrent",
        "gru": "rnnpipe.cells.gru:GRU",
        "gru-reset-before": "rnnpipe.cells.gru:GRUResetBefore",
        "hopfield": "rnnpipe.cells.hopfield:Hopfield",
        "indrnn": "rnnpipe.cells.indrnn:IndRNN",
        "janet": "rnnpipe.cells.janet:JANET",
        "jordan": "rnnpipe.cells.jordan:Jordan",
        "layernorm-lstm": "rnnpipe.cells.layernorm_lstm:LayerNormLSTM",
        "light-gru": "rnnpipe.cells.light_gru:LightGRU",
        "linear-recurrent": "rnnpipe.cells.linear_recurrent:LinearRecurrent",
        "lru": "rnnpipe.cells.lru:LRU",
        "lstm": "rnnpipe.cells.lstm:LSTM",
        "mgu": "rnnpipe.cells.mgu:MGU",
        "minlstm": "rnnpipe.cells.minlstm:MinLSTM",
        "mogrifier-lstm": "rnnpipe.cells.mogrifier_lstm:MogrifierLSTM",
        "qrnn": "rnnpipe.cells.qrnn:QRNN",
        "slstm": "rnnpipe.cells.slstm:SLSTM",
        "sru": "rnnpipe.cells.sru:SRU",
    }


@hookimpl
def register_encoders() -> dict[str, str]:
    return {
        "embedding": "rnnpipe.models.encoders:Embedding",
        "one-hot": "rnnpipe.models.encoders:OneHot",
    }


@hookimpl
def register_models() -> dict[str, str]:
    return {
        "autoencoder": "rnnpipe.models.autoencoder:Autoencoder",
        "encoder-decoder": "rnnpipe.models.encoder_decoder:EncoderDecoder",
        "hred": "rnnpipe.models.hierarchical:HRED",
        "language-model": "rnnpipe.models.language_model:LanguageModel",
        "sequence-model": "rnnpipe.models.sequence_model:SequenceModel",
        "transformer": "rnnpipe.models.transformer:Transformer",
        "variational-autoencoder": "rnnpipe.models.autoencoder:VariationalAutoencoder",
        "vhred": "rnnpipe.models.hierarchical:VHRED",
    }


@hookimpl
def register_initializers() -> dict[str, str]:
    return {
        name: f"rnnpipe.models.initializers:{name.replace('-', '_')}"
        for name in (
            "uniform",
            "normal",
            "truncated-normal",
            "orthogonal",
            "xavier-uniform",
            "xavier-normal",
            "constant",
        )
    }


@hookimpl
def register_optimizers() -> dict[str, str]:
    in_torch = (
        "Adadelta",
        "Adafactor",
        "Adagrad",
        "Adam",
        "AdamW",
        "Adamax",
        "ASGD",
        "LBFGS",
        "NAdam",
        "RAdam",
        "RMSprop",
        "Rprop",
        "SGD",
    )
    return {
        **{name.lower(): f"torch.optim:{name}" for name in in_torch},
        "momentum": "rnnpipe.training.optimizers:momentum",
        "nesterov": "rnnpipe.training.optimizers:nesterov",
        "rmsprop-keras": "rnnpipe.training.optimizers:rmsprop_keras",
        "rmsprop-tensorflow": "rnnpipe.training.optimizers:RMSPropTensorFlow",
        "muon": "rnnpipe.training.optimizers:muon",
        "sparseadam": "rnnpipe.training.optimizers:sparseadam",
    }


@hookimpl
def register_samplers() -> dict[str, str]:
    return {
        "forbid": "rnnpipe.generation.steering:Forbid",
        "greedy": "rnnpipe.generation.samplers:Greedy",
        "min-length": "rnnpipe.generation.steering:MinLength",
        "min-p": "rnnpipe.generation.truncation:MinP",
        "pattern": "rnnpipe.generation.constraints:Pattern",
        "prefix": "rnnpipe.generation.constraints:Prefix",
        "repetition-penalty": "rnnpipe.generation.steering:RepetitionPenalty",
        "temperature": "rnnpipe.generation.samplers:Temperature",
        "top-k": "rnnpipe.generation.truncation:TopK",
        "top-p": "rnnpipe.generation.truncation:TopP",
        "typical": "rnnpipe.generation.truncation:Typical",
    }


@hookimpl
def register_backends() -> dict[str, str]:
    return {
        "cudnn": "rnnpipe.backends.cudnn:CudnnBackend",
        "fused": "rnnpipe.backends.fused:FusedBackend",
        "hoisted": "rnnpipe.backends.hoisted:HoistedBackend",
        "loop": "rnnpipe.backends.loop:LoopBackend",
        "scan": "rnnpipe.backends.scan:ScanBackend",
    }


@hookimpl
def register_callbacks() -> dict[str, str]:
    return {
        "tensorboard": "rnnpipe.training.tensorboard:TensorBoard",
        "trajectory": "rnnpipe.training.trajectory:Trajectory",
    }


@hookimpl
def register_trainers() -> dict[str, str]:
    return {
        "gradient-descent": "rnnpipe.training.loop:fit",
        "hebbian": "rnnpipe.training.hebbian:fit",
        "ridge": "rnnpipe.training.ridge:fit",
    }
