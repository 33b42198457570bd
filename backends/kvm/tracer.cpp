#include "backends/kvm/tracer.h"

#include "backends/kvm/child_events.h"

namespace exo::kvm {

Tracer::~Tracer() {
    const Work nothing;  // the end
    hand_over(nothing);
    thread_.join();
}

void Tracer::serve() {
    leave_children_to_others();
    for (bool more = true; more;) {
        work_.wait(nullptr);
        const Work& work = *work_.load();
        more = static_cast<bool>(work);
        if (more) work();
        work_ = nullptr;
        work_.notify_one();
    }
}

void Tracer::hand_over(const Work& work) {
    work_ = &work;
    work_.notify_one();
    work_.wait(&work);
}

}  // namespace exo::kvm
