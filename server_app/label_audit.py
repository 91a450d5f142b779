"""Label audit at the end of a run: every client makes its own list; the server learns only that it was made."""

from collections import defaultdict
from collections.abc import Mapping
from logging import WARNING

from flwr.app import ConfigRecord, RecordDict
from flwr.common.logger import log

from client_app.label_audit_files import list_path
from server_app.doubted_labels import doubted_labels
from server_app.report.text import percent
from server_app.state import RunState
from server_app.storage.audit_scores import nouns, write_scores
from server_app.storage.audit_scoring import score_run
from server_app.storage.checkpoints import CheckpointError, CheckpointFolder
from server_app.storage.doubted_labels import write_doubts
from server_app.transport.client_grid import ClientGrid
from strategies.query import query
from strategies.validation import to_record
from tasks.client_data import knows_right_labels
from tasks.protocol import MODEL_ROUND, NO_FOLDER, SAME_DATA, Arrays, Mode

QUERY = "query.audit"


def audit_labels(state: RunState, grid: ClientGrid) -> None:
    """Let every client list its suspicious labels; in a simulation say how good the lists are.

    The model that judges is the one that the run keeps as its best (``run.monitor``), else the last. A client that does
    not answer is named with its reason; that does not end the run.
    """
    if not state.settings.audit.enabled:
        return
    model = kept_best(state)
    done, problems = request_audits(state, grid, model=model)
    for reason, clients in problems.items():
        log(WARNING, "No label audit from client %s: %s", ", ".join(map(str, clients)), reason)
    total = len(state.registration.clients)
    if model is not None:
        print(f"Label audit: by the model of round {model[1]}, which the run keeps as its best", flush=True)
    if state.mode is Mode.DEPLOYMENT:
        state.directory.update_status(audits=len(done))
        place = f"<state-dir>/{state.directory.path.name}/"
        print(f"Label audit: {len(done)} of {total} clients made one, each at its node in {place}", flush=True)
        return
    where = list_path(state.directory.path / "clients" / "<client>", state.settings.audit.format)
    print(f"Label audit: {len(done)} of {total} clients have a list of suspicious labels: {where}", flush=True)
    if not knows_right_labels(state.settings):
        state.directory.update_status(audits=len(done))
        print("Which of these labels are right nobody knows, so nothing says how good the lists are.", flush=True)
    elif done:
        _score(state, done)


def request_audits(
    state: RunState,
    grid: ClientGrid,
    kind: str = QUERY,
    patience: float | None = None,
    model: tuple[Arrays, int] | None = None,
) -> tuple[list[int], dict[str, list[int]]]:
    """Ask all clients for their audit; return those that made one, and by reason those that did not.

    So is asked for anything else that clients make of a model, by a message of another ``kind``, with as much
    ``patience`` as that takes, in seconds; None = the time of a round. ``model`` is another model than the final one,
    and its round.
    """
    grid.begin_round(state.server_round, state.checkpoint_round)
    sent, model_round = (state.sent, state.server_round) if model is None else model
    arrays = to_record(sent)
    registration = [entry.client for entry in state.registration.clients]
    asked, timeout = set(grid.get_node_ids()), patience or state.settings.federation.round_timeout
    twins = asked & {client for group in state.registration.same_data() for client in group}
    problems: dict[int, str] = {}
    for same_data, clients in ((True, twins), (False, asked - twins)):  # of its own twin only each is told
        answers = query(
            grid,
            clients,
            kind,
            RecordDict({"arrays": arrays, "config": ConfigRecord({SAME_DATA: same_data, MODEL_ROUND: model_round})}),
            _made_one,
            timeout=timeout,
            silence=f"no answer within {timeout:g} s",
            failure="{reason}",
        )
        problems |= answers.problems
    left = (client for client in registration if client not in asked)
    problems |= dict.fromkeys(left, "it took no further part in the run")
    by_reason: defaultdict[str, list[int]] = defaultdict(list)
    for client, reason in sorted(problems.items()):
        by_reason[reason].append(client)
    return [client for client in registration if client not in problems], dict(by_reason)


def kept_best(state: RunState) -> tuple[Arrays, int] | None:
    """Return what travels of the model that the run keeps as its best, and its round; None where that is the last."""
    if state.best_round is None or state.best_round == state.server_round:
        return None
    try:
        best = CheckpointFolder(state.directory.path).best().model
    except CheckpointError as error:
        log(WARNING, "The clients judge by the last model, as the best one cannot be read: %s", error)
        return None
    return {name: best[name] for name in state.sent}, state.best_round


def _made_one(client: int, answer: Mapping[str, object]) -> None:
    """Raise ``ValueError`` if the client has made nothing; its answer says no more than that."""
    if answer.get(NO_FOLDER):
        raise ValueError("it has no folder of its own (state-dir in its node-config)")


def _score(state: RunState, clients: list[int]) -> None:
    """Compare the lists with the true labels, record it, and print one line."""
    scores, problems = score_run(state.directory.path, state.settings, clients)
    for client, reason in problems.items():
        log(WARNING, "The label audit of client %d is not scored: %s", client, reason)
    write_scores(state.directory.path, scores)
    _show_doubts(state, [score.client for score in scores.clients])
    found, rates = scores.mean("precision_at_wrong"), scores.rates("suggested")
    if found is not None:
        wrong, (many, each) = percent(scores.wrong / scores.examples), nouns(scores)
        print(
            f"Label audit: {wrong} of all {many} are wrong, and {percent(found)} of those at the top of the lists. "
            f"With every suggestion followed {percent(rates['accuracy'])} of all {each} would be right.",
            flush=True,
        )


def _show_doubts(state: RunState, clients: list[int]) -> None:
    """Keep pictures of some doubted labels for the report, where they may be shown."""
    try:
        doubts = doubted_labels(state.directory.path, state.settings, clients)
    except (OSError, ValueError) as error:
        log(WARNING, "No pictures of doubted labels for the report: %s", error)
        return
    if doubts:
        write_doubts(state.directory.path, doubts)
