/* Streams are lazy: what is put on one runs when somebody waits for it, and not before. Waiting for
 * an event of another stream runs that stream up to the record, not further. Recording a graph
 * collects work instead. */
#include <algorithm>
#include <chrono>
#include <deque>
#include <memory>
#include <set>
#include <vector>

#include "runtime.h"

namespace
{

typedef std::function<void()> work;

/* Of a recorded graph. */
struct node {
    work run;
    std::function<cudaError_t()> check; /* or none: may it be launched again? */
};

/* One cudaEventRecord. */
struct record {
    cudaStream_t on;
    bool is_done;
    std::chrono::steady_clock::time_point when;
};

} // namespace

struct CUstream_st {
    int device;
    bool is_blocking;
    std::deque<work> queue;
    cudaStreamCaptureStatus status;
    cudaStreamCaptureMode mode;
    std::vector<node> recorded;
};

struct CUevent_st {
    int device;
    bool has_time;
    std::shared_ptr<record> last; /* none: never recorded */
};

struct CUgraph_st {
    int device;
    std::vector<node> nodes;
};

struct CUgraphExec_st {
    int device;
    std::shared_ptr<const std::vector<node>> nodes;
};

namespace
{

using emulated::current_device;
using emulated::lock;
using emulated::result;
using emulated::unless_recording;
using emulated::usable;

/* What there is, so that a handle that is none is an error and no crash. */
template <typename T> std::set<T> &live()
{
    static std::set<T> &all = *new std::set<T>();
    return all;
}

template <typename T> bool is_live(T handle)
{
    return live<T>().count(handle) != 0;
}

/* The stream that this thread records, if any, other than relaxed. */
thread_local cudaStream_t recording;

void run_next(cudaStream_t stream)
{
    const work next = std::move(stream->queue.front());
    stream->queue.pop_front();
    next();
}

void run_stream(cudaStream_t stream)
{
    emulated::open_memory();
    while (!stream->queue.empty()) run_next(stream);
    emulated::close_memory();
}

void run_until(const record &r)
{
    if (r.is_done) return;
    emulated::open_memory();
    while (!r.is_done) run_next(r.on);
    emulated::close_memory();
}

void break_recording(cudaStream_t stream)
{
    stream->status = cudaStreamCaptureStatusInvalidated;
}

/* Before a wait on `stream`: is it allowed? */
cudaError_t check_wait(cudaStream_t stream)
{
    if (cudaError_t error = unless_recording()) return error;
    if (stream && !is_live(stream)) return cudaErrorInvalidResourceHandle;
    if (stream && stream->status != cudaStreamCaptureStatusNone) {
        break_recording(stream);
        return cudaErrorStreamCaptureUnsupported;
    }
    return cudaSuccess;
}

} // namespace

namespace emulated
{

cudaError_t unless_recording()
{
    if (!recording) return cudaSuccess;
    break_recording(recording);
    return cudaErrorStreamCaptureUnsupported;
}

void run_device(int device, bool only_blocking)
{
    for (cudaStream_t stream : live<cudaStream_t>())
        if (stream->device == device && (stream->is_blocking || !only_blocking)) run_stream(stream);
}

cudaError_t enqueue(cudaStream_t stream, std::function<void()> run,
                    std::function<cudaError_t()> check)
{
    if (!stream) {
        if (recording) {
            break_recording(recording);
            return cudaErrorStreamCaptureImplicit;
        }
        run_device(current_device(), true);
        open_memory();
        run();
        close_memory();
        return cudaSuccess;
    }
    if (!is_live(stream) || stream->device != current_device())
        return cudaErrorInvalidResourceHandle;
    if (stream->status == cudaStreamCaptureStatusInvalidated)
        return cudaErrorStreamCaptureInvalidated;
    if (stream->status == cudaStreamCaptureStatusActive)
        stream->recorded.push_back({std::move(run), std::move(check)});
    else
        stream->queue.push_back(std::move(run));
    return cudaSuccess;
}

} // namespace emulated

/* ---- streams ---------------------------------------------------------------------------- */

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags)
{
    const auto held = lock();
    *stream = nullptr;
    if (cudaError_t error = usable()) return result(error);
    if (flags > cudaStreamNonBlocking) return result(cudaErrorInvalidValue);
    *stream = new CUstream_st{current_device(),
                              flags != cudaStreamNonBlocking,
                              {},
                              cudaStreamCaptureStatusNone,
                              cudaStreamCaptureModeGlobal,
                              {}};
    live<cudaStream_t>().insert(*stream);
    return result(cudaSuccess);
}

cudaError_t cudaStreamCreate(cudaStream_t *stream)
{
    return cudaStreamCreateWithFlags(stream, cudaStreamDefault);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    const auto held = lock();
    if (!is_live(stream)) return result(cudaErrorInvalidResourceHandle);
    if (recording == stream) recording = nullptr;
    run_stream(stream);
    live<cudaStream_t>().erase(stream);
    delete stream;
    return result(cudaSuccess);
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    const auto held = lock();
    if (cudaError_t error = usable()) return result(error);
    if (cudaError_t error = check_wait(stream)) return result(error);
    if (stream)
        run_stream(stream);
    else
        emulated::run_device(current_device(), true);
    return result(cudaSuccess);
}

cudaError_t cudaStreamQuery(cudaStream_t stream)
{
    return cudaStreamSynchronize(stream);
}

cudaError_t cudaDeviceSynchronize(void)
{
    const auto held = lock();
    if (cudaError_t error = usable()) return result(error);
    if (cudaError_t error = unless_recording()) return result(error);
    emulated::run_device(current_device(), false);
    return result(cudaSuccess);
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags)
{
    const auto held = lock();
    if (!is_live(event) || (stream && !is_live(stream)))
        return result(cudaErrorInvalidResourceHandle);
    if (flags != 0) return result(cudaErrorInvalidValue);
    if (stream && stream->status != cudaStreamCaptureStatusNone) {
        break_recording(stream);
        return result(cudaErrorStreamCaptureIsolation);
    }
    if (!event->last) return result(cudaSuccess);
    const std::shared_ptr<record> last = event->last;
    return result(emulated::enqueue(stream, [last] { run_until(*last); }));
}

/* ---- events ----------------------------------------------------------------------------- */

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags)
{
    const auto held = lock();
    *event = nullptr;
    if (cudaError_t error = usable()) return result(error);
    if (flags > (cudaEventBlockingSync | cudaEventDisableTiming))
        return result(cudaErrorInvalidValue);
    *event = new CUevent_st{current_device(), !(flags & cudaEventDisableTiming), nullptr};
    live<cudaEvent_t>().insert(*event);
    return result(cudaSuccess);
}

cudaError_t cudaEventCreate(cudaEvent_t *event)
{
    return cudaEventCreateWithFlags(event, cudaEventDefault);
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    const auto held = lock();
    if (!is_live(event)) return result(cudaErrorInvalidResourceHandle);
    live<cudaEvent_t>().erase(event);
    delete event;
    return result(cudaSuccess);
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    const auto held = lock();
    if (!is_live(event) || (stream && !is_live(stream)) ||
        event->device != (stream ? stream->device : current_device()))
        return result(cudaErrorInvalidResourceHandle);
    if (stream && stream->status != cudaStreamCaptureStatusNone) {
        break_recording(stream);
        return result(cudaErrorStreamCaptureUnsupported);
    }
    const auto made = std::make_shared<record>(record{stream, false, {}});
    event->last = made;
    return result(emulated::enqueue(stream, [made] {
        made->is_done = true;
        made->when = std::chrono::steady_clock::now();
    }));
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    const auto held = lock();
    if (cudaError_t error = unless_recording()) return result(error);
    if (!is_live(event)) return result(cudaErrorInvalidResourceHandle);
    if (event->last) run_until(*event->last);
    return result(cudaSuccess);
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    return cudaEventSynchronize(event);
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t start, cudaEvent_t end)
{
    const auto held = lock();
    if (!is_live(start) || !is_live(end) || !start->has_time || !end->has_time || !start->last ||
        !end->last)
        return result(cudaErrorInvalidResourceHandle);
    if (!start->last->is_done || !end->last->is_done) return result(cudaErrorNotReady);
    *ms = std::chrono::duration<float, std::milli>(end->last->when - start->last->when).count();
    return result(cudaSuccess);
}

/* ---- graphs ----------------------------------------------------------------------------- */

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode)
{
    const auto held = lock();
    if (!stream) return result(cudaErrorStreamCaptureUnsupported);
    if (!is_live(stream)) return result(cudaErrorInvalidResourceHandle);
    if (stream->status != cudaStreamCaptureStatusNone || recording)
        return result(cudaErrorInvalidValue);
    stream->status = cudaStreamCaptureStatusActive;
    stream->mode = mode;
    stream->recorded.clear();
    if (mode != cudaStreamCaptureModeRelaxed) recording = stream;
    return result(cudaSuccess);
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph)
{
    const auto held = lock();
    *graph = nullptr;
    if (!stream || !is_live(stream)) return result(cudaErrorInvalidResourceHandle);
    if (stream->status == cudaStreamCaptureStatusNone)
        return result(cudaErrorStreamCaptureUnmatched);
    if (stream->mode != cudaStreamCaptureModeRelaxed && recording != stream)
        return result(cudaErrorStreamCaptureWrongThread);
    const bool is_broken = stream->status == cudaStreamCaptureStatusInvalidated;
    recording = nullptr;
    stream->status = cudaStreamCaptureStatusNone;
    if (is_broken) {
        stream->recorded.clear();
        return result(cudaErrorStreamCaptureInvalidated);
    }
    *graph = new CUgraph_st{stream->device, std::move(stream->recorded)};
    live<cudaGraph_t>().insert(*graph);
    return result(cudaSuccess);
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus *status)
{
    const auto held = lock();
    if (stream && !is_live(stream)) return result(cudaErrorInvalidResourceHandle);
    *status = stream ? stream->status : cudaStreamCaptureStatusNone;
    return result(cudaSuccess);
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long flags)
{
    const auto held = lock();
    *exec = nullptr;
    if (!is_live(graph)) return result(cudaErrorInvalidResourceHandle);
    if (flags != 0) return result(cudaErrorInvalidValue);
    *exec =
        new CUgraphExec_st{graph->device, std::make_shared<const std::vector<node>>(graph->nodes)};
    live<cudaGraphExec_t>().insert(*exec);
    return result(cudaSuccess);
}

cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *exec, cudaGraph_t graph,
                                          unsigned long long flags)
{
    return cudaGraphInstantiate(exec, graph, flags);
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream)
{
    const auto held = lock();
    if (!is_live(exec) || exec->device != current_device())
        return result(cudaErrorInvalidResourceHandle);
    const auto nodes = exec->nodes;
    for (const node &each : *nodes)
        if (cudaError_t error = each.check ? each.check() : cudaSuccess) return result(error);
    return result(emulated::enqueue(stream, [nodes] {
        for (const node &each : *nodes) each.run();
    }));
}

cudaError_t cudaGraphUpload(cudaGraphExec_t exec, cudaStream_t stream)
{
    const auto held = lock();
    if (!is_live(exec) || (stream && !is_live(stream)))
        return result(cudaErrorInvalidResourceHandle);
    return result(cudaSuccess);
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    const auto held = lock();
    if (!is_live(graph)) return result(cudaErrorInvalidResourceHandle);
    live<cudaGraph_t>().erase(graph);
    delete graph;
    return result(cudaSuccess);
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    const auto held = lock();
    if (!is_live(exec)) return result(cudaErrorInvalidResourceHandle);
    live<cudaGraphExec_t>().erase(exec);
    delete exec;
    return result(cudaSuccess);
}
