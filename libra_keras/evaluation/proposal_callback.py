"""Recall of proposals during training, and the weights that did best."""

from libra_keras.evaluation.epoch_evaluation import EpochEvaluation
from libra_keras.evaluation.proposal_recall import check_counts, collect_proposals, proposal_recall


class ProposalEvaluation(EpochEvaluation):
    """Evaluates proposals at the end of epochs: adds `val_AR@100`, `val_AR@300`, ... to the logs.

    It is to a `RegionProposalNetwork` what `COCOEvaluation` is to a detector; as that, put it
    *before* the callbacks that read the logs.

    Args:
        data: `DetectionData` to evaluate on; its classes do not matter.
        counts: increasing ints, numbers of best proposals per image that count. Defaults to
            `(100, 300, 1000)`.
        policy, batch_size, every, best_weights, verbose, fills_logs: as in `COCOEvaluation`.
        monitor: str, one of the names that are logged. Defaults to that of the first count.

    Attributes:
        metrics: dict of the last evaluation, as `proposal_recall` returns it.
        detections: list of the last evaluation, as `collect_proposals` returns it.
        best: float, the best value of `monitor` so far; set it to continue an earlier run.

    Raises:
        ValueError: if `counts`, `every`, `monitor` or the name of `best_weights` is not as
            described.

    Example:

    >>> from libra_keras import data
    >>> from libra_keras.evaluation import ProposalEvaluation
    >>> callback = ProposalEvaluation(data.shapes(4), counts=(10, 100))
    >>> callback.monitor, callback.names[:2]
    ('val_AR@10', ('AR@10', 'AR@100'))
    """

    def __init__(
        self,
        data,
        counts=(100, 300, 1000),
        policy=None,
        batch_size=8,
        every=1,
        best_weights=None,
        monitor=None,
        verbose=0,
        fills_logs=False,
    ):
        check_counts(counts)
        sizes = [f"AR_{size}@{counts[-1]}" for size in ("small", "medium", "large")]
        names = [*(f"AR@{count}" for count in counts), *sizes]
        when = {"every": every, "fills_logs": fills_logs}
        best = {"best_weights": best_weights, "monitor": monitor}
        super().__init__(names, data, policy, batch_size, verbose=verbose, **when, **best)
        self.counts = tuple(counts)

    def measure(self, batches):
        """Returns what `collect_proposals` and `proposal_recall` do."""
        found = collect_proposals(self.model, batches, self.verbose)
        return found, proposal_recall(self.data, found, self.counts)
