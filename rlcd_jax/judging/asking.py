"""The judge behind an interface as a run asks it: one process for all, and priced."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from ml_collections import ConfigDict

from rlcd_jax import schema, tasks
from rlcd_jax.judging import api_judge, chat_api, verdicts
from rlcd_jax.judging import settings as api_settings


class Asking:
    """The judge of a run's section `judge`, which one process asks for all.

    Its answers are kept in the workdir, so that none is paid for twice.

    Args:
      config: of the run; sections `judge` and `evaluate`.
      task: its own, with the wording around questions.
      workdir: of the run.
      once: lets one process do something, whose result all have, as JSON holds it.

    Attributes:
      cost: what was asked so far: calls, their price in the currency of the config,
        replies cut before their first word, and answers that could not be read.
    """

    def __init__(
        self,
        config: ConfigDict,
        task: tasks.Task,
        workdir: str | pathlib.Path,
        once: Callable[[Callable[[], Any]], Any],
    ) -> None:
        self._config, self._task, self._workdir = config, task, workdir
        self._once = once
        self.cost = {"calls": 0, "spent": 0.0, "cut": 0, "unparsed": 0}

    def ask(
        self, samples: Sequence[verdicts.JudgedReply], question: str, name: str
    ) -> list[verdicts.Verdict]:
        """Return verdicts on replies.

        Args:
          samples: replies of all systems.
          question: of the task.
          name: of the judge in the records.

        Raises:
          ValueError, RuntimeError: see `chat_api.ChatApi.ask_all`.
        """
        said = self._once(lambda: self._compare(samples, question, name))
        self.cost = said["cost"]
        return [schema.from_dict(verdicts.Verdict, row) for row in said["judged"]]

    @functools.cached_property
    def _api(self) -> chat_api.ChatApi:
        key = api_settings.key()
        settings, missing = api_settings.read(self._config.judge, self._workdir, key)
        if settings is None:
            raise ValueError(missing)
        return chat_api.ChatApi(settings, key)

    def _compare(
        self, samples: Sequence[verdicts.JudgedReply], question: str, name: str
    ) -> dict[str, Any]:
        """Return verdicts and the cost so far, as JSON can hold them."""
        api = self._api
        judged = api_judge.compare(
            samples,
            api,
            question=question,
            judge=name,
            both_orders=self._config.evaluate.both_orders,
            wording=self._task.judge_wording,
        )
        unparsed = self.cost["unparsed"] + sum(one.unparsed for one in judged)
        cost = {"calls": api.calls, "spent": api.spent, "cut": api.cut}
        return {
            "judged": [dataclasses.asdict(one) for one in judged],
            "cost": {**cost, "unparsed": unparsed},
        }
