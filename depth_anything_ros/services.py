"""The node's own services: what takes long runs on the worker's thread, and the node answers everything else meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.task import Future
from std_srvs.srv import Trigger

from .errors import DepthAnythingError

Action = Callable[[], str]
"""Does something and returns what to tell the caller; what it raises is told as a failure."""


def offer_service(node: Node, name: str, run: Callable[[Action], str], action: Action) -> None:
    """Create a `std_srvs/Trigger` service under the node's name.

    Args:
        node: whose service it is.
        name: of the service, relative to the node's.
        run: runs the action on the worker's thread and returns its result; blocks until then.
        action: what the service does.
    """

    async def answer(request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        answered: Future[Any] = Future(executor=node.executor)

        def wait() -> None:
            try:
                response.success, response.message = True, run(action)
            except Exception as error:
                expected = isinstance(error, (DepthAnythingError, OSError))
                response.success, response.message = False, str(error) if expected else f"{type(error).__name__}: {error}"
            answered.set_result(response)
            if node.executor is not None:
                node.executor.wake()

        threading.Thread(target=wait, name=name, daemon=True).start()
        return await answered

    # In the node's own group, which runs one callback at a time, the unfinished one would keep all others waiting.
    node.create_service(Trigger, f"~/{name}", answer, callback_group=ReentrantCallbackGroup())
