#include "os-awareness/linux/kernel_image.h"

namespace exo::os {

Result<KernelImage> find_kernel_image(const ProbeContext&, ProbeFailure& failure) {
    failure.steps.emplace_back("linux: not searched for");
    return fail(Errc::not_found, "no Linux kernel");
}

bool still_there(KernelImage& image) {
    auto text = image.space->read_string(image.banner_address, image.banner.size());
    return text && *text == image.banner;
}

}  // namespace exo::os
