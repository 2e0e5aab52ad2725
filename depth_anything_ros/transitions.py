"""`configure` on a thread of its own, so that parameters, diagnostics and lifecycle queries are answered while an engine is built."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.executors import Executor
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.task import Future


class BackgroundConfigure:
    """Runs what configures a node beside its executor. rclpy runs every transition inside the executor, which serves nothing meanwhile."""

    def __init__(self, node: LifecycleNode) -> None:
        """Take over the node's change_state service: configure goes to a thread; every other transition stays in the executor.

        While one configures, rclpy's state machine refuses any other transition.
        """
        self._node = node
        self._threads: list[threading.Thread] = []
        service = node._service_change_state  # rclpy offers no other way
        self._direct = service.callback
        service.callback = self._change_state
        # In the node's own group, which runs one callback at a time, the unfinished one would keep all others waiting.
        service.callback_group = ReentrantCallbackGroup()
        service.callback_group.add_entity(service)

    async def _change_state(self, request: ChangeState.Request, response: ChangeState.Response) -> ChangeState.Response:
        wanted = request.transition
        if (wanted.label or wanted.id) not in ("configure", Transition.TRANSITION_CONFIGURE):
            return self._direct(request, response)
        answer: Future[Any] = Future(executor=self._node.executor)

        def configure() -> None:
            try:
                answer.set_result(self._direct(request, response))
            except Exception as error:  # raised where rclpy would have raised it
                answer.set_exception(error)

        self._start(configure)
        return await answer

    def autostart(self, executor: Executor | None) -> None:
        """Configure and activate the node: with an executor on a thread and then in the executor, without one at once."""

        def configure() -> None:
            if self._node.trigger_configure() != TransitionCallbackReturn.SUCCESS:
                return
            if executor is None:
                self._node.trigger_activate()
            else:
                executor.create_task(self._node.trigger_activate)

        if executor is None:
            configure()
        else:
            self._start(configure)

    def _start(self, call: Callable[[], None]) -> None:
        """Run something that configures on a thread of its own, and let the executor look up when it is done."""

        def run() -> None:
            try:
                call()
            except Exception:
                if self._node.context.ok():  # Ctrl-C came in the middle of it
                    raise
            finally:
                executor = self._node.executor
                if executor is not None:
                    executor.wake()

        self._threads = [thread for thread in self._threads if thread.is_alive()]
        self._threads.append(threading.Thread(target=run, name="configure", daemon=True))
        self._threads[-1].start()

    def join(self) -> None:
        """Wait until nothing configures any more."""
        for thread in self._threads:
            thread.join()


def free_state_machine(node: LifecycleNode) -> None:
    """Free what rclpy 9 leaves to the garbage collector: the state machine of a lifecycle node that was destroyed.

    Until that runs, the DDS participant lives on and answers discovery, and clients of the next node in this process wait many seconds for
    its services.
    """
    machine = getattr(node, "_state_machine", None)
    if machine is not None and hasattr(machine, "destroy_when_not_in_use"):
        machine.destroy_when_not_in_use()
