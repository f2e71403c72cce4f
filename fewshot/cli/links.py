"""Which facts of a benchmark fill which arguments of the learner and its backbone."""

LINKS = {
    "task": "model.init_args.task",
    "train_classes": "model.init_args.train_classes",
    "in_channels": "model.init_args.backbone.init_args.in_channels",
    "image_size": "model.init_args.backbone.init_args.image_size",
    "in_features": "model.init_args.backbone.init_args.in_features",
    "vocab_size": "model.init_args.backbone.init_args.vocab_size",
    "tokenizer": "model.init_args.backbone.init_args.tokenizer",
    "document_frequencies": "model.init_args.backbone.init_args.document_frequencies",
    "vectors": "model.init_args.backbone.init_args.vectors",
    "vocabulary": "model.init_args.backbone.init_args.vocabulary",
    "documents": "model.init_args.backbone.init_args.documents",
    "shot": "model.init_args.shot",
    "length_scale": "model.init_args.length_scale",
    "variance": "model.init_args.variance",
    "noise": "model.init_args.noise",
    "entities": "model.init_args.backbone.init_args.entities",
    "dimensions": "model.init_args.backbone.init_args.dimensions",
    "entity_vectors": "model.init_args.backbone.init_args.entity_vectors",
    "tail_counts": "model.init_args.tail_counts",
    "relations": "model.init_args.backbone.init_args.relations",
    "neighbours": "model.init_args.backbone.init_args.neighbours",
    "edges": "model.init_args.backbone.init_args.edges",
}
"""Facts of the benchmark and the arguments they fill, where the benchmark and class have them."""
COSTLY = ("train_classes", "dimensions", "entity_vectors", "tail_counts", "neighbours", "edges")
"""Those asked for only where a class needs them: to know them, data must be read or learned."""


OPTIONAL = ("vectors", "vocabulary")
"""Facts that what asks for them can do without."""


def states(benchmark: type, fact: str) -> bool:
    """Whether a benchmark's class declares or has the attribute `fact`."""
    return any(
        fact in vars(c) or fact in vars(c).get("__annotations__", {}) for c in benchmark.__mro__
    )
