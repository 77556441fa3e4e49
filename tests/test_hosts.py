"""Which processes make up a job: every launcher's variables, and what is refused."""

import http.server
import threading

import pytest

from rlcd_jax.job import hosts, tpu_metadata

SLURM = {
    "SLURM_JOB_ID": "123456",
    "SLURM_STEP_NODELIST": "gpu[007-008]",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "1",
    "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
    "SLURM_GPUS_ON_NODE": "8",
    "CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7",
}
ONE_A_GPU = SLURM | {
    "SLURM_NTASKS": "16",
    "SLURM_PROCID": "11",
    "SLURM_LOCALID": "3",
    "SLURM_STEP_TASKS_PER_NODE": "8(x2)",
}
MPI = {
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911",
}
GKE = {"TPU_WORKER_HOSTNAMES": "w-0.svc,w-1.svc", "TPU_WORKER_ID": "1"}
SLICES = GKE | {
    "MEGASCALE_NUM_SLICES": "2",
    "MEGASCALE_SLICE_ID": "1",
    "MEGASCALE_COORDINATOR_ADDRESS": "job-0-0.svc:8080",
}
BY_HAND = {hosts.COORDINATOR: "a:8476", hosts.COUNT: "2", hosts.INDEX: "0"}


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"SLURM_NTASKS": "1", "SLURM_JOB_ID": "1", "SLURM_STEP_NODELIST": "a"},
        {"TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"},
        {"TPU_WORKER_HOSTNAMES": "10.0.0.2", "TPU_WORKER_ID": "0"},
        {"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"},
        BY_HAND | {hosts.COUNT: "1"},
    ],
)
def test_a_single_process_is_no_job_of_many(environ):
    assert hosts.find(environ) is None


def test_slurm_with_one_task_a_node_has_all_its_gpus():
    members = hosts.find(SLURM)
    assert (members.source, members.count, members.index) == ("SLURM", 2, 1)
    assert members.coordinator == f"gpu007:{61440 + 123456 % 4096}"
    assert members.devices is None
    assert members.name(1) == "process 1 (host gpu008)"


def test_slurm_with_one_task_a_gpu_has_one():
    members = hosts.find(ONE_A_GPU)
    assert (members.count, members.index, members.devices) == (16, 11, (3,))
    assert members.name(11) == "process 11 (host gpu008)"
    bound = ONE_A_GPU | {"CUDA_VISIBLE_DEVICES": "0"}  # --gpus-per-task=1
    assert hosts.find(bound).devices is None
    halves = SLURM | {
        "SLURM_NTASKS": "4",
        "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
        "SLURM_LOCALID": "1",
    }
    assert hosts.find(halves).devices == (4, 5, 6, 7)
    bound = halves | {"CUDA_VISIBLE_DEVICES": "0,1,2,3"}
    assert hosts.find(bound).devices is None
    with pytest.raises(ValueError, match="share 3 GPUs"):
        hosts.find(halves | {"CUDA_VISIBLE_DEVICES": "0,1,2"})
    cyclic = ONE_A_GPU | {"SLURM_DISTRIBUTION": "cyclic"}
    assert hosts.find(cyclic).names == ()


@pytest.mark.parametrize(
    ("listed", "names"),
    [
        ("node001", ["node001"]),
        ("node001,host2", ["node001", "host2"]),
        ("node[009-011],host2", ["node009", "node010", "node011", "host2"]),
        ("a[1,07-08]-ib,b", ["a1-ib", "a07-ib", "a08-ib", "b"]),
    ],
)
def test_expand_nodes_reads_lists_of_slurm(listed, names):
    assert hosts.expand_nodes(listed) == names


def test_open_mpi_says_who_and_where():
    members = hosts.find(MPI)
    assert (members.source, members.count, members.index) == ("Open MPI", 4, 3)
    assert members.coordinator.startswith("10.96.0.1:") and members.devices == (1,)
    five = {k: v for k, v in MPI.items() if "orte" not in k}
    with pytest.raises(ValueError, match="-x JAX_COORDINATOR_ADDRESS=HOST:PORT"):
        hosts.find(five)
    five["PMIX_NAMESPACE"] = "prterun-node-1-3210@1"
    assert hosts.find(five).coordinator.startswith("node-1:")
    assert hosts.find(five | {hosts.COORDINATOR: "b:1"}).coordinator == "b:1"
    # mpirun inside a SLURM job starts its daemons by srun, a task a node.
    assert hosts.find(SLURM | MPI).source == "Open MPI"


def test_slices_of_tpus_are_seen():
    members = hosts.find(GKE)
    assert (members.count, members.index, members.devices) == (2, 1, None)
    assert members.coordinator == "w-0.svc:8482" and members.names == (
        "w-0.svc",
        "w-1.svc",
    )
    members = hosts.find(SLICES)
    assert (members.count, members.index) == (4, 3)
    assert members.coordinator == "job-0-0.svc:8482"
    single_hosts = SLICES | {"TPU_WORKER_HOSTNAMES": "w-0", "TPU_WORKER_ID": "0"}
    assert (hosts.find(single_hosts).count, hosts.find(single_hosts).index) == (2, 1)


def test_metadata_of_a_tpu_vm_says_the_same():
    told = {
        "agent-worker-number": "1",
        "worker-network-endpoints": "unknown:unknown:10.0.0.2,unknown:unknown:10.0.0.3",
        "tpu-env": "ACCELERATOR_TYPE: 'v5litepod-16'\nMEGASCALE_NUM_SLICES: '1'",
    }
    members = hosts.find(tpu_metadata.variables(told.get))
    assert (members.count, members.index) == (2, 1)
    assert members.coordinator == "10.0.0.2:8482"
    assert tpu_metadata.variables({}.get) == {}
    alone = told | {"worker-network-endpoints": "t1v-n-w-0"}
    assert (
        hosts.find(tpu_metadata.variables(alone.get) | {"TPU_WORKER_ID": "0"}) is None
    )


def test_metadata_are_asked_for_on_a_tpu_vm_alone(tmp_path):
    told = {"agent-worker-number": "1", "worker-network-endpoints": "a:b:c,a:b:d"}
    there = {"devices": (str(tmp_path / "none"), str(tmp_path)), "ask": told.get}
    variables = tpu_metadata.beside({"HOME": "/h", "TPU_WORKER_ID": "0"}, **there)
    assert variables == {
        "HOME": "/h",
        "TPU_WORKER_ID": "0",
        "TPU_WORKER_HOSTNAMES": "c,d",
    }

    def never(name):
        raise AssertionError(name)

    for name in tpu_metadata.INSTEAD:
        environ = {name: "1"}
        assert tpu_metadata.beside(environ, **there | {"ask": never}) == environ
    nowhere = {"devices": (str(tmp_path / "none"),), "ask": never}
    assert tpu_metadata.beside({"HOME": "/h"}, **nowhere) == {"HOME": "/h"}


def test_variables_by_hand_go_before_a_launcher():
    members = hosts.find(BY_HAND | {hosts.DEVICES: "2,3"})
    assert (members.coordinator, members.count, members.index) == ("a:8476", 2, 0)
    assert members.devices == (2, 3)
    assert hosts.find(SLURM | {hosts.COORDINATOR: "b:99"}).coordinator == "b:99"
    assert hosts.find(SLURM | BY_HAND).source == "variables"


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({hosts.COORDINATOR: "a:1"}, "JAX_NUM_PROCESSES and JAX_PROCESS_ID are not"),
        ({hosts.COUNT: "2", hosts.INDEX: "0"}, "JAX_COORDINATOR_ADDRESS is not"),
        (BY_HAND | {hosts.COUNT: "two"}, "JAX_NUM_PROCESSES is 'two'"),
        (BY_HAND | {hosts.INDEX: "2"}, "process 2 of 2; accepted: processes 0 to 1"),
        (BY_HAND | {hosts.COORDINATOR: "a"}, "accepted: HOST:PORT"),
        (BY_HAND | {hosts.DEVICES: "a"}, "JAX_LOCAL_DEVICE_IDS='a'"),
        ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4"}, "not started by srun"),
        (SLURM | {"SLURM_STEP_TASKS_PER_NODE": "x"}, "accepted: such as"),
        (SLURM | {"SLURM_NTASKS": "3"}, "the same --ntasks"),
        (GKE | {"TPU_WORKER_ID": ""}, "TPU_WORKER_ID is not set"),
        (SLICES | {"MEGASCALE_COORDINATOR_ADDRESS": ""}, "worker 0 of slice 0"),
    ],
)
def test_what_says_too_little_is_refused_with_the_remedy(environ, message):
    with pytest.raises(ValueError, match=message):
        hosts.find(environ)


def test_read_metadata_reads_an_attribute_or_nothing(monkeypatch):
    asked = []

    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.path, self.headers["Metadata-Flavor"]))
            known = self.path.endswith("/agent-worker-number")
            self.send_response(200 if known else 404)
            self.end_headers()
            self.wfile.write(b"3" if known else b"not found")

        def log_message(self, *_):
            """Keep quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}/attributes"
        monkeypatch.setattr(tpu_metadata, "URL", address)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        assert tpu_metadata.read("agent-worker-number") == "3"
        assert tpu_metadata.read("tpu-env") is None
        server.shutdown()
    assert asked[0] == ("/attributes/agent-worker-number", "Google")
    assert tpu_metadata.read("agent-worker-number") is None  # no such server
