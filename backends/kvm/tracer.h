// The thread that all ptrace(2) requests come from: the kernel takes them from no other.
#pragma once

#include <atomic>
#include <functional>
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
    using Work = std::function<void()>;
    void serve();
    void hand_over(const Work& work);

    std::atomic<const Work*> work_ = nullptr;  // being done, or to be
    std::thread thread_;                       // last: it uses the other
};

}  // namespace exo::kvm
