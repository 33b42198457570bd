// The one thread that owns the target: every ptrace call, libvirt call and OS walk runs there, so that none
// of it needs a lock and what must come from the thread that attached does.
#pragma once

#include <future>
#include <mutex>
#include <thread>
#include <type_traits>
#include <utility>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>

namespace exo::stub {

namespace asio = boost::asio;

class TargetThread {
public:
    TargetThread() : work_(context_.get_executor()), thread_([this] { context_.run(); }) {}
    TargetThread(const TargetThread&) = delete;
    TargetThread& operator=(const TargetThread&) = delete;
    ~TargetThread() {
        work_.reset();
        thread_.join();
    }

    // Runs `job` there and then, on `executor`, `done` with what it returned. `executor` has work until then.
    template <class Job, class Done>
    void run(const asio::any_io_executor& executor, Job job, Done done) {
        asio::post(context_, [job = std::move(job), done = std::move(done),
                              work = asio::make_work_guard(executor)]() mutable {
            asio::post(work.get_executor(),
                       [done = std::move(done), result = job()]() mutable { done(std::move(result)); });
        });
    }

    // Runs `job` here, while no other job that is run so does: of two clients, one may be answered by its own
    // thread.
    template <class Job>
    std::invoke_result_t<Job&> alone(Job& job) {
        const std::lock_guard lock{turn_};
        return job();
    }

    // The same for callers that have nothing else to do: blocks.
    template <class Job>
    std::invoke_result_t<Job&> call(Job job) {
        std::packaged_task<std::invoke_result_t<Job&>()> task{std::move(job)};
        auto result = task.get_future();
        asio::post(context_, [&task] { task(); });
        return result.get();
    }

private:
    std::mutex turn_;
    asio::io_context context_{1};
    asio::executor_work_guard<asio::io_context::executor_type> work_;
    std::thread thread_;
};

}  // namespace exo::stub
