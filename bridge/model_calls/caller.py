"""Calls a model for every study that matches its rule, once for each version of the model and content of the study."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from bridge.errors import Refusal, RefusedByServer, Unavailable
from bridge.findings.model import AiResult
from bridge.intake import Intake, Outcome, Taken
from bridge.model import KeptResult, ModelCall
from bridge.model_calls.request import Access, request, run_id
from bridge.model_calls.rule import CalledSeries, Rule, called_series, content_digest
from bridge.model_calls.service import Answered, ModelService
from bridge.ports import Claim, Wait, WorkTable, model_queue
from bridge.settling import Settling
from bridge.web.exchange import Doubtful

MOST_CALLS = 20
"""Answers of one version for one study: a model that stores images which match its own rule is called without end."""

MOST_STABLE = 30
"""A study that goes on changing is called for after so many times `stable_s`, complete or not."""


class CallingState(WorkTable, Protocol):
    """What of the state calling needs."""

    def holders(self, study_instance_uid: str) -> frozenset[str]: ...

    def waiting_studies(self, studies: Sequence[str]) -> frozenset[str]: ...

    def answered_calls(self, model: str, version: str, study_instance_uid: str) -> frozenset[str]: ...

    def commit_answer(
        self, claim: Claim, call: ModelCall | None, results: Sequence[KeptResult], now: float, wait: Wait
    ) -> None: ...


@dataclass(frozen=True)
class CalledModel:
    """A model as the site registered it. `attempts` calls may fail for a study before it waits for a person."""

    name: str
    version: str
    rule: Rule
    stable_s: float
    attempts: int
    token_s: float

    @property
    def wait(self) -> Wait:
        return Wait(self.stable_s, MOST_STABLE * self.stable_s)


@dataclass
class ModelCaller:
    """The step for one model; several threads may take it at once. `access` opens a study until a moment in seconds,
    `reply_to` is where a model sends what it could not answer at once."""

    model: CalledModel
    service: ModelService
    intake: Intake
    state: CallingState
    settling: Settling
    lease_s: float
    access: Callable[[str, float], Access]
    reply_to: str
    at: Callable[[str], None]

    def step(self, worker: str) -> int:
        """Calls for one due study. Raises Unavailable after giving it back: the model cannot be reached now."""
        now = self.settling.clock()
        claims = self.state.claim(model_queue(self.model.name), now, self.lease_s, 1, worker)
        for claim in claims:
            self.at("model claimed")
            away: list[Unavailable] = []
            self.settling.guarded(claim, partial(self._step, claim, away))
            if away:
                raise away[0]
        return len(claims)

    def _step(self, claim: Claim, away: list[Unavailable]) -> None:
        series = self._series(claim.key)
        content = content_digest(series)
        answered = self.state.answered_calls(self.model.name, self.model.version, claim.key) if series else frozenset()
        if not series or content in answered:
            self.state.done(claim, self.settling.clock())
            return
        if self.state.waiting_studies([claim.key]):
            self.state.reschedule(claim, self.settling.clock() + self.model.stable_s)
            return
        if len(answered) >= MOST_CALLS:
            raise RefusedByServer(
                f"model {self.model.name}: called {MOST_CALLS} times for this study: does it store images there that "
                "match its own rule?"
            )
        run = run_id(self.model.name, self.model.version, claim.key, content)
        try:
            answer = self._answer(run, claim, series)
        except Unavailable as error:
            if not isinstance(error, Doubtful):
                away.append(error)
            elif claim.attempts + 1 >= self.model.attempts:
                raise RefusedByServer(f"{error}; tried {claim.attempts + 1} times") from None
            raise
        self.at("model answered")
        self._keep(claim, run, content, answer)

    def _series(self, uid: str) -> tuple[CalledSeries, ...]:
        study, sources = self.intake.study(uid), self.model.rule.sources
        if study is None or (sources and not sources & self.state.holders(uid)):
            return ()
        return called_series(self.model.rule, study)

    def _answer(self, run: str, claim: Claim, series: Sequence[CalledSeries]) -> Answered:
        access = self.access(claim.key, self.settling.clock() + self.model.token_s)
        return self.service.call(request(run, self.model.version, claim.key, series, access, self.reply_to))

    def _keep(self, claim: Claim, run: str, content: str, answer: Answered) -> None:
        """What is in order is kept with the note of the call, at once. What is refused waits for a person: the model
        is then called again for the same run, and what is kept of it stays as it is."""
        judged = self.intake.judged([self._checked(self.intake.read(item), run, claim.key) for item in answer.items])
        new = [one for one in judged if isinstance(one, KeptResult)]
        refused = [one for one in judged if isinstance(one, Taken) and one.outcome is Outcome.REFUSED]
        model = self.model
        call = ModelCall(model.name, model.version, claim.key, content, run, len(judged)) if not refused else None
        wait = Wait(self.intake.quiet_s, self.intake.max_wait_s)
        self.state.commit_answer(claim, call, new, self.settling.clock(), wait)
        self.at("answer kept")
        if refused:
            said = "; ".join(f"{r.field} {r.reason}".strip() for one in refused for r in one.refusals[:5])
            raise RefusedByServer(f"model {model.name}: {len(refused)} of its results are refused: {said[:1000]}")

    def _checked(self, read: AiResult | Taken, run: str, uid: str) -> AiResult | Taken:
        """An answer speaks of the study it was asked for, under the run it was given."""
        if isinstance(read, Taken):
            return read
        wrong = []
        if read.study_instance_uid != uid:
            wrong.append(Refusal("study_instance_uid", "is not the one of the request"))
        if read.run_id != run and not read.run_id.startswith(f"{run}."):
            wrong.append(Refusal("run_id", "must be the one of the request, or begin with it and a full stop"))
        return Taken(read.run_id, Outcome.REFUSED, tuple(wrong)) if wrong else read
