"""A TensorRT that builds and runs one model, made of the real bindings' classes: depth = 1 + mean of the channels, on the C driver."""

from __future__ import annotations

import ctypes
import json
from dataclasses import dataclass, field

import tensorrt as trt

from .strict import constructor, strict

DRIVER = ctypes.CDLL("libcuda.so.1")
SCRATCH_BYTES = 4096
PHASES = (("Building", None, 4), ("Timing", "Building", 10))


def counts() -> dict[str, int]:
    """Return what is alive in the driver."""
    numbers = (ctypes.c_int * 7)()
    DRIVER.stand_in_counts(numbers)
    return dict(zip(("contexts", "current", "memory", "streams", "graphs", "contexts_in_all", "modules"), numbers))


@dataclass
class World:
    """Attributes that a test changes to make things go wrong; `calls` are those of the last build and execution contexts."""

    input_shape: tuple = (1, 3, 24, 32)
    output_shape: tuple = (1, 24, 32)
    input_dtype: object = trt.DataType.FLOAT
    outputs: int = 1
    gives: dict = field(default_factory=dict)  # "Class.method": value to return instead of the right one
    log_error: str = ""
    step_answers: list = field(default_factory=list)
    plans: list = field(default_factory=list)
    loaded: list = field(default_factory=list)
    profiles: list = field(default_factory=list)
    contexts: list = field(default_factory=list)
    addresses: list = field(default_factory=list)
    logger: object = None
    config: object = None

    def _give(self, name, right):
        """Return the value of a call: the right one, or what the test wants (with a line in TensorRT's log)."""
        if name not in self.gives:
            return right()
        if self.log_error:
            self.logger.log(trt.ILogger.Severity.ERROR, self.log_error)
        value = self.gives[name]
        if isinstance(value, list):  # one value for each call, then the right one
            value = value.pop(0) if value else right()
        if isinstance(value, Exception):
            raise value
        return value

    def install(self, monkeypatch) -> None:
        """Put the constructors in the place of the real ones, which need the libraries."""
        for name in ("Builder", "OnnxParser", "Runtime"):
            monkeypatch.setattr(trt, name, constructor(getattr(trt, name), getattr(self, f"_{name}")))

    # Building

    def _Builder(self, logger):
        self.logger = logger
        return self._give("Builder", lambda: strict(
            REAL["Builder"],
            create_network=self._network,
            create_builder_config=self._config,
            create_optimization_profile=self._profile,
            build_serialized_network=self._build,
        ))  # fmt: skip

    def _network(self, flags=0):
        assert flags == 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        image = strict(trt.ITensor, {"name": "image", "dtype": self.input_dtype, "shape": self.input_shape})
        depths = [strict(trt.ITensor, {"name": f"depth{i}", "dtype": trt.DataType.FLOAT}) for i in range(self.outputs)]
        return self._give("Builder.create_network", lambda: strict(
            trt.INetworkDefinition,
            {"num_inputs": 1, "num_outputs": self.outputs},
            get_input=lambda index: [image][index],
            get_output=lambda index: depths[index],
        ))  # fmt: skip

    def _OnnxParser(self, network, logger):
        error = strict(trt.ParserError, node_name=lambda: "/blocks.0/attn", node_operator=lambda: "Einsum", desc=lambda: "is not supported")
        return strict(
            REAL["OnnxParser"],
            {"num_errors": 1},
            parse=lambda model, path=None: self._give("OnnxParser.parse", lambda: True),
            get_error=lambda index: [error][index],
        )

    def _config(self):
        self.config = self._give("Builder.create_builder_config", lambda: strict(
            trt.IBuilderConfig,
            set_memory_pool_limit=lambda pool, pool_size: None,
            add_optimization_profile=lambda profile: self._give("IBuilderConfig.add_optimization_profile", lambda: 0),
            create_timing_cache=lambda content: self._give("IBuilderConfig.create_timing_cache", lambda: self._times(content)),
            set_timing_cache=lambda cache, ignore_mismatch: self._give("IBuilderConfig.set_timing_cache", lambda: True),
        ))  # fmt: skip
        return self.config

    @staticmethod
    def _times(content):
        return strict(trt.ITimingCache, serialize=lambda: content + b"t")

    def _profile(self):
        def set_shape(input, min, opt, max):
            assert input == "image"
            self.profiles.append((min, opt, max))

        return strict(trt.IOptimizationProfile, set_shape=set_shape)

    def _build(self, network, config):
        monitor = config.progress_monitor
        assert isinstance(monitor, trt.IProgressMonitor)
        for phase in PHASES:
            monitor.phase_start(*phase)
        self.step_answers = [monitor.step_complete("Timing", step) for step in range(10)]
        monitor.phase_finish("Timing")
        self.step_answers += [monitor.step_complete("Building", step) for step in range(4)]
        monitor.phase_finish("Building")
        if not all(self.step_answers):
            return None
        plan = json.dumps({"engine": len(self.plans), "shape": self.input_shape, "profiles": self.profiles}).encode()
        self.plans.append(plan)
        return self._give("Builder.build_serialized_network", lambda: plan)

    # Running

    def _Runtime(self, logger):
        self.logger = logger
        return self._give("Runtime", lambda: strict(REAL["Runtime"], deserialize_cuda_engine=self._engine))

    def _engine(self, plan):
        assert counts()["current"] == 1, "TensorRT is called without a current context"
        self.loaded.append(plan)
        built = json.loads(plan)
        names = ["image", "depth0"]
        ranges = built["profiles"] or [[built["shape"]] * 3]
        shapes = {"image": self.input_shape, "depth0": self.output_shape}
        dtypes = {"image": self.input_dtype, "depth0": trt.DataType.FLOAT}
        modes = {"image": trt.TensorIOMode.INPUT, "depth0": trt.TensorIOMode.OUTPUT}
        return self._give("Runtime.deserialize_cuda_engine", lambda: strict(
            trt.ICudaEngine,
            {"num_io_tensors": 2, "num_optimization_profiles": len(ranges), "device_memory_size_v2": SCRATCH_BYTES},
            get_tensor_name=lambda index: names[index],
            get_tensor_mode=modes.__getitem__,
            get_tensor_dtype=dtypes.__getitem__,
            get_tensor_shape=shapes.__getitem__,
            get_tensor_profile_shape=lambda name, profile_index: [tuple(shape) for shape in ranges[profile_index]],
            create_execution_context=lambda strategy: self._context(ranges, strategy),
        ))  # fmt: skip

    def _context(self, ranges, strategy):
        assert strategy == trt.ExecutionContextAllocationStrategy.USER_MANAGED
        state = {"profile": 0, "shape": None, "addresses": {}, "ran": False, "scratch": 0}
        self.contexts.append(state)

        def set_profile(profile_index, stream_handle):
            state["profile"] = profile_index
            return self._give("IExecutionContext.set_optimization_profile_async", lambda: True)

        def set_shape(name, shape):
            least, _, most = ranges[state["profile"]]
            assert all(low <= side <= high for low, side, high in zip(least, shape, most)), "not a shape of the chosen profile"
            state["shape"] = shape
            return self._give("IExecutionContext.set_input_shape", lambda: True)

        def set_address(name, memory):
            state["addresses"][name] = memory
            self.addresses.append(name)
            return self._give("IExecutionContext.set_tensor_address", lambda: True)

        def set_scratch(memory, size):
            assert size >= SCRATCH_BYTES
            state["scratch"] = memory

        def execute(stream_handle):
            assert counts()["current"] == 1, "TensorRT is called without a current context"
            assert DRIVER.stand_in_holds(ctypes.c_size_t(state["scratch"]), SCRATCH_BYTES), "the scratch memory is gone"
            assert state["ran"] or not DRIVER.stand_in_captures(ctypes.c_size_t(stream_handle)), "the first run must not be captured"
            state["ran"], (images, _, height, width) = True, state["shape"]
            codes = []
            for index in range(images):
                image, depth = (state["addresses"][name] + 4 * sides * height * width * index for name, sides in (("image", 3), ("depth0", 1)))
                codes.append(DRIVER.stand_in_network(*map(ctypes.c_size_t, (stream_handle, image, depth)), height, width))
            return self._give("IExecutionContext.execute_async_v3", lambda: not any(codes))

        return self._give("ICudaEngine.create_execution_context", lambda: strict(
            trt.IExecutionContext,
            set_optimization_profile_async=set_profile,
            set_input_shape=set_shape,
            set_device_memory=set_scratch,
            get_tensor_shape=lambda name: {"image": state["shape"], "depth0": (state["shape"][0], *state["shape"][2:])}[name],
            set_tensor_address=set_address,
            execute_async_v3=execute,
        ))  # fmt: skip


REAL = {name: getattr(trt, name) for name in ("Builder", "OnnxParser", "Runtime")}
