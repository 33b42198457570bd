// The thread that all ptrace(2) requests come from: the kernel takes them from no other.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <type_traits>
#include <utility>

namespace exo::kvm {

class Tracer {
public:
    Tracer() : thread_([this] { serve(); }) {}
    Tracer(const Tracer&) = delete;
    Tracer& operator=(const Tracer&) = delete;
    ~Tracer();

    // Waits for it; at once where this is that thread already. From one thread at a time.
    template <class Work>
    std::invoke_result_t<Work&> run(Work work) {
        if (std::this_thread::get_id() == thread_.get_id()) return work();
        if constexpr (std::is_void_v<std::invoke_result_t<Work&>>) {
            hand_over([&] { work(); });
        } else {
            std::optional<std::invoke_result_t<Work&>> result;
            hand_over([&] { result.emplace(work()); });
            return *std::move(result);
        }
    }

private:
    void serve();
    void hand_over(const std::function<void()>& work);

    std::mutex mutex_;
    std::condition_variable changed_;
    const std::function<void()>* work_ = nullptr;  // being done, or to be
    bool ending_ = false;
    std::thread thread_;  // last: it uses the others
};

}  // namespace exo::kvm
