"""Settings of a run, every one with its default, its allowed values and one line about it.

``pyproject.toml`` repeats these keys and defaults, because Flower reads them there; a test keeps both equal.
The attribute ``learning_rate`` of section ``train`` is the key ``train.learning-rate``.
"""

from dataclasses import dataclass, field
from typing import Any

AUTO = "auto"
OFF = "off"
NAME = "[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
"""Regular expression of a run's or a variant's name."""
YEAR = 31_536_000.0  # seconds; from about 300 years on, the system can no longer wait
OLDER_RUNS = {"evaluate.validation": 0.0, "strategy.ema": 0.0}
"""By key: what a run did that is older than the setting, where that is not the default; a resumed one keeps it."""


def key(default: Any, about: str, **limits: Any) -> Any:
    """Declare one setting; ``limits`` are ``low``, ``above``, ``high``, ``below``, or those of texts.

    Those are ``choices``, ``path`` or ``is_name``: a text that can be part of a folder's name, see :data:`NAME`.

    With ``or_number`` a text may also be a whole number from there on. A whole number without ``high`` is at most
    2**63 - 1.
    """
    return field(default=default, metadata={"about": about, **limits})


@dataclass(frozen=True)
class RunSettings:
    """What a run is called, where it is recorded and when it ends early."""

    name: str = key(
        "", "name of the run, part of its directory's name; letters, digits, '.', '_' and '-'", is_name=True
    )
    tags: str = key("", "words to find the run by, separated by commas; see winnow runs --where")
    note: str = key("", "anything to remember about the run; its report shows it")
    output_dir: str = key("", "folder for run directories; empty = runs/ in the working directory", path=True)
    resume: str = key("", "run directory to continue; its settings must be the same", path=True)
    checkpoint_every: int = key(1, "rounds between checkpoints; best and last are kept", low=1)
    early_stopping: int = key(0, "stop after so many evaluations without a better `run.monitor`; 0 = never", low=0)
    monitor: str = key(
        "accuracy",
        "measure on validation data that decides which model is best; sites = accuracy on what all sites hold out",
        choices=("accuracy", "balanced-accuracy", "macro-f1", "dice", "mean-iou", "loss", "sites"),
    )
    callbacks: str = key(
        "", "what else happens around rounds, as inline TOML, e.g. tensorboard = {}; see docs/plugins.md"
    )


@dataclass(frozen=True)
class FederationSettings:
    """Who takes part, and what happens when replies are missing."""

    num_clients: int = key(20, "number of clients; in a simulation also Flower's num-supernodes", low=1, high=10**6)
    fraction_train: float = key(1.0, "share of the clients that train in a round", above=0.0, high=1.0)
    fraction_evaluate: float = key(
        0.0, "share of the clients that evaluate on their own data; 0 = none", low=0.0, high=1.0
    )
    min_replies: int = key(2, "usable replies that a round needs; with fewer it is skipped", low=1)
    max_skipped_rounds: int = key(3, "consecutive skipped rounds after which the run fails", low=0)
    round_timeout: float = key(600.0, "seconds to wait for the replies of a round", above=0.0, high=YEAR)
    wait_for_clients: float = key(
        120.0, "seconds to wait until `num-clients` clients are connected", above=0.0, high=YEAR
    )
    wire: str = key(
        "float32",
        "number format in which model and updates travel; float16 and bfloat16 halve the bytes",
        choices=("float32", "float16", "bfloat16"),
    )
    memory: float = key(
        0.0, "GB that the updates of a round may take in memory; more lie in a file; 0 = half of the memory", low=0.0
    )
    client_cpus: int = key(0, "simulation: CPUs of one client (winnow run); 0 = one", low=0)
    client_gpus: float = key(0.0, "simulation: share of a GPU of one client (winnow run)", low=0.0)


@dataclass(frozen=True)
class TaskSettings:
    """What is learned."""

    name: str = key("digits", "task, or package.module:Name")
    args: str = key("", "its arguments as inline TOML")
    data_path: str = key("", "folder with the data; empty = $WINNOW_DATA, else data/", path=True)
    bad_data: str = key(
        "refuse",
        "what a site does about files of its own that cannot be used: take no part, or leave them out",
        choices=("refuse", "skip"),
    )
    cache_path: str = key(
        "", "folder that keeps decoded and encoded examples between processes; a node uses its state-dir", path=True
    )
    encoder: str = key("", "frozen encoder whose features are learned from, or package.module:Name; empty = none")
    encoder_args: str = key("", "its arguments as inline TOML")
    weights_path: str = key("", "folder with files of weights; empty = the data folder; a node says its own", path=True)
    statistics: str = key("", "table: statistics of the columns as JSON; empty = sites are asked before round 1")


@dataclass(frozen=True)
class ModelSettings:
    """The network."""

    name: str = key(AUTO, "model, or package.module:Name; auto = the task's default")
    args: str = key("", "its arguments as inline TOML")
    init: str = key("", "file below `task.weights-path` with weights to start from; empty = random weights")
    init_ignore: str = key("", "tensors of that file to leave out, as patterns of names, e.g. fc.*; they start fresh")
    freeze: str = key("", "parameters that are neither trained nor sent, as patterns of names, e.g. conv1.*, layer?.*")


@dataclass(frozen=True)
class PartitionSettings:
    """How a simulation divides the training examples among the clients."""

    name: str = key("dirichlet", "partition, or package.module:Name")
    args: str = key("alpha = 0.5, min_size = 20", "its arguments as inline TOML")


@dataclass(frozen=True)
class NoiseSettings:
    """Which labels a simulation makes wrong, and how many at which client."""

    name: str = key(
        AUTO,
        "label noise, or package.module:Name; none = keep the labels; auto = symmetric, but none for your own data",
    )
    args: str = key("", "its arguments as inline TOML")
    rates: str = key("linear", "which client gets which noise rate")
    rates_args: str = key("max = 0.85", "the distribution's arguments as inline TOML")


@dataclass(frozen=True)
class LossSettings:
    """What local training minimises."""

    name: str = key("fsanl", "loss, or package.module:Name")
    args: str = key("", "its arguments as inline TOML")
    preset: str = key("", "published parameters for a data set, e.g. cifar-100")
    warmup: float = key(0.0, "passes over a client's data until added cross-entropy is gone; 0 = none", low=0.0)


@dataclass(frozen=True)
class MethodSettings:
    """What a client does in a round."""

    name: str = key("sgd", "client method, or package.module:Name")
    args: str = key("", "its arguments as inline TOML")


@dataclass(frozen=True)
class TrainSettings:
    """Local optimisation."""

    optimizer: str = key("sgd", "local optimizer", choices=("sgd", "adam", "adamw"))
    learning_rate: float = key(0.1, "learning rate at round 1", above=0.0)
    momentum: float = key(0.9, "momentum of SGD", low=0.0, high=1.0)
    weight_decay: float = key(0.0, "weight decay", low=0.0)
    schedule: str = key("constant", "learning rate over rounds", choices=("constant", "cosine", "step"))
    schedule_rounds: int = key(0, "rounds until the end of the schedule; 0 = num-server-rounds", low=0)
    step_rounds: int = key(10, "rounds between two steps of the step schedule", low=1)
    step_factor: float = key(0.1, "factor of each step of the step schedule", above=0.0, high=1.0)
    decorrelation: float = key(
        0.0,
        "FedDecorr: weight of the correlation of a batch's features in what any method minimises; published: 0.1",
        low=0.0,
    )
    clip_norm: float = key(5.0, "largest 2-norm of a gradient; 0 = no clipping", low=0.0)
    epochs: int = key(5, "passes over the client's data in a round", low=1)
    batch_size: int = key(16, "examples in a batch", low=1)
    drop_last: bool = key(False, "leave out a last batch that is not full")
    augment: bool = key(True, "use the task's augmentation")
    precision: str = key(
        "float32",
        "number format of the forward pass, and the layout of images; auto = what is fastest on this machine",
        choices=("float32", "bfloat16", "float32-channels-last", "bfloat16-channels-last", AUTO),
    )
    engine: str = key(
        "eager", "compile the forward pass and the loss; auto = where there is cuda", choices=("eager", "compile", AUTO)
    )
    device: str = key(AUTO, "device of the clients; auto = cuda, mps or cpu", choices=(AUTO, "cuda", "mps", "cpu"))
    threads: int = key(0, "torch threads of one client; 0 = its share of the machine", low=0, high=1024)
    cohort: str = key(
        OFF,
        "clients of a process trained side by side: off, how many, or auto = many where that is measured to be faster",
        choices=(OFF, AUTO),
        or_number=2,
    )


@dataclass(frozen=True)
class StrategySettings:
    """How the updates become one model."""

    name: str = key("robust", "strategy, or package.module:Name of any Flower strategy")
    args: str = key("", "its arguments as inline TOML")
    aggregator: str = key("geometric-median", "aggregator of the robust strategy, or package.module:Name")
    aggregator_args: str = key("", "its arguments as inline TOML")
    pre_aggregators: str = key("", "pre-aggregators, in order, as inline TOML, e.g. nnm = { f = 4 }, bucketing = {}")
    server_optimizer: str = key(
        "none", "server optimizer after the aggregator, or package.module:Name; none = take the result"
    )
    server_optimizer_args: str = key("", "its arguments as inline TOML")
    weighting: str = key("examples", "weight of a client before aggregation", choices=("examples", "uniform"))
    ema: float = key(
        0.8, "share of earlier rounds in the model of a run, a moving average; 0 = the last", low=0.0, below=1.0
    )


@dataclass(frozen=True)
class AttackSettings:
    """Hostile clients, to measure robustness; in a simulation only."""

    name: str = key("none", "what hostile clients do, or package.module:Name; none = all clients are honest")
    args: str = key("", "its arguments as inline TOML")
    share: float = key(0.2, "share of the clients that are hostile", low=0.0, high=1.0)
    start_round: int = key(1, "first round of the attack; before it hostile clients are honest", low=1)


@dataclass(frozen=True)
class PrivacySettings:
    """Differential privacy of a client's whole data, by Flower's wrappers and mods; see docs/privacy.md."""

    mode: str = key(
        "none",
        "who clips the updates, and how; all modes but local add the noise at the server",
        choices=("none", "server-fixed", "server-adaptive", "client-fixed", "client-adaptive", "local"),
    )
    noise_multiplier: float = key(1.0, "central: noise of the sum of the updates, in clipping norms", low=0.0)
    clipping_norm: float = key(0.1, "largest 2-norm of an update; the adaptive modes start from it", above=0.0)
    quantile: float = key(0.5, "adaptive: quantile of the update norms at which to clip", low=0.0, high=1.0)
    clipping_rate: float = key(0.2, "adaptive: learning rate of the clipping norm", above=0.0)
    count_stddev: float = key(
        0.0, "adaptive: noise of the number of clipped updates; 0 = a twentieth of the clients of a round", low=0.0
    )
    epsilon: float = key(1.0, "local: privacy budget of one reply", above=0.0)
    delta: float = key(1e-5, "probability with which the guarantee may fail", above=0.0, high=0.1)


@dataclass(frozen=True)
class EvaluateSettings:
    """Evaluation: on clean test data at the server, and on examples held out to choose the best model by."""

    every: int = key(1, "rounds between evaluations; the last round is always evaluated", low=1)
    batch_size: int = key(512, "examples in a batch", low=1)
    validation: float = key(
        0.1, "share of the training examples held out to choose the best model by; 0 = none", low=0.0, below=1.0
    )
    validation_at: str = key(
        AUTO,
        "who holds them out; auto = the server, but sites with data of their own if they evaluate",
        choices=(AUTO, "server", "sites"),
    )
    combine: str = key(
        AUTO,
        "how the measures of the sites become one; auto = median, but as it does for a strategy of Flower's own",
        choices=(AUTO, "median", "weighted-median", "mean"),
    )
    report: str = key(
        "combined",
        "what is recorded of the sites' measures: of each site that agrees, of all together, or nothing",
        choices=("per-site", "combined", "none"),
    )
    epsilon: float = key(
        0.0, "privacy budget of a site's accuracy in one round, for each of its examples; 0 = no noise", low=0.0
    )


@dataclass(frozen=True)
class AuditSettings:
    """The list of suspicious labels that each client gets in its own folder after the last round."""

    enabled: bool = key(True, "write each client's list; it never leaves the client")
    format: str = key("csv", "of the list; parquet needs the extra `parquet`", choices=("csv", "parquet"))
    embeddings: bool = key(True, "list near duplicates and outliers too, by the encoder's or the model's features")


@dataclass(frozen=True)
class PersonalSettings:
    """What each site makes for itself after the last round, in its own folder; nothing of it is sent."""

    compare: bool = key(
        False, "train the model that the site would have alone, as long as the run, and compare; costs as much again"
    )
    tune: str = key(
        "none",
        "which part of the final model each site tunes on its own examples",
        choices=("none", "norm", "head", "all"),
    )
    epochs: int = key(5, "passes over the site's examples in tuning", low=1)
    learning_rate: float = key(0.0, "learning rate of tuning; 0 = a tenth of train.learning-rate", low=0.0)


@dataclass(frozen=True)
class Settings:
    """All settings of one run."""

    seed: int = key(1, "every random draw follows from it", low=0)
    num_server_rounds: int = key(20, "number of rounds", low=1)
    variants: str = key("", "variants to run one after the other: one `name = { key = value }` a line (TOML)")
    run: RunSettings = field(default_factory=RunSettings)
    federation: FederationSettings = field(default_factory=FederationSettings)
    task: TaskSettings = field(default_factory=TaskSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    partition: PartitionSettings = field(default_factory=PartitionSettings)
    noise: NoiseSettings = field(default_factory=NoiseSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    method: MethodSettings = field(default_factory=MethodSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    strategy: StrategySettings = field(default_factory=StrategySettings)
    attack: AttackSettings = field(default_factory=AttackSettings)
    privacy: PrivacySettings = field(default_factory=PrivacySettings)
    evaluate: EvaluateSettings = field(default_factory=EvaluateSettings)
    audit: AuditSettings = field(default_factory=AuditSettings)
    personal: PersonalSettings = field(default_factory=PersonalSettings)
