// qSupported never fails; what a client says twice is what it says once.
#include "fuzz.h"
#include "rsp/requests.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string text(exo::fuzz::as_text(data, size));
    const auto features = exo::rsp::ClientFeatures::parse(text);
    const bool named = text.find("multiprocess+") != std::string::npos;
    exo::fuzz::require(named || !features.multiprocess);
    exo::fuzz::require(features.binary_upload || !features.error_message);
    const auto twice =
        exo::rsp::ClientFeatures::parse(text + ";" + text.substr(text.starts_with(':') ? 1 : 0));
    exo::fuzz::require(twice.multiprocess == features.multiprocess && twice.swbreak == features.swbreak &&
                       twice.hwbreak == features.hwbreak && twice.error_message == features.error_message &&
                       twice.no_resumed == features.no_resumed &&
                       twice.vcont_supported == features.vcont_supported);
    return 0;
}
