// Where a file that is made goes: in order, piece by piece, so that it need not be whole in memory.
#pragma once

#include <vector>

#include "backends/api/memory.h"

namespace exo::os {

class ByteSink {
public:
    ByteSink() = default;
    ByteSink(const ByteSink&) = delete;
    ByteSink& operator=(const ByteSink&) = delete;
    virtual ~ByteSink() = default;

    // All of it, after what was written before.
    virtual Result<void> write(ConstBytes bytes) = 0;
};

class VectorSink final : public ByteSink {
public:
    Result<void> write(ConstBytes bytes) override {
        content.insert(content.end(), bytes.begin(), bytes.end());
        return {};
    }

    std::vector<std::byte> content;
};

}  // namespace exo::os
