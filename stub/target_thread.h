// The one thread that owns the target: every ptrace call, libvirt call and OS walk runs there, so that none
// of it needs a lock and what must come from the thread that attached does.
#pragma once

#include <future>
#include <thread>
#include <type_traits>
#include <utility>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>

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

    // Runs `function` there and resumes the caller on its own executor with what it returned.
    template <class Function>
    asio::awaitable<std::invoke_result_t<Function&>> run(Function function) {
        // See stub/client.h: no temporaries with destructors around co_await.
        static_assert(std::is_trivially_destructible_v<Function>, "capture by reference");
        co_return co_await asio::co_spawn(
            context_,
            [function = std::move(function)]() mutable -> asio::awaitable<std::invoke_result_t<Function&>> {
                co_return function();
            },
            asio::use_awaitable);
    }

    // The same for callers that are no coroutine: blocks.
    template <class Function>
    std::invoke_result_t<Function&> call(Function function) {
        std::packaged_task<std::invoke_result_t<Function&>()> task{std::move(function)};
        auto result = task.get_future();
        asio::post(context_, [&task] { task(); });
        return result.get();
    }

private:
    asio::io_context context_{1};
    asio::executor_work_guard<asio::io_context::executor_type> work_;
    std::thread thread_;
};

}  // namespace exo::stub
