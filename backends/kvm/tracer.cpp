#include "backends/kvm/tracer.h"

namespace exo::kvm {

Tracer::~Tracer() {
    {
        const std::scoped_lock lock{mutex_};
        ending_ = true;
    }
    changed_.notify_all();
    thread_.join();
}

void Tracer::serve() {
    std::unique_lock lock{mutex_};
    for (;;) {
        changed_.wait(lock, [this] { return ending_ || work_ != nullptr; });
        if (work_ == nullptr) return;
        (*work_)();
        work_ = nullptr;
        changed_.notify_all();
    }
}

void Tracer::hand_over(const std::function<void()>& work) {
    std::unique_lock lock{mutex_};
    work_ = &work;
    changed_.notify_all();
    changed_.wait(lock, [this] { return work_ == nullptr; });
}

}  // namespace exo::kvm
