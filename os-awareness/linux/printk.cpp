#include "os-awareness/linux/printk.h"

#include "os-awareness/linux/printk_memory.h"

namespace exo::os {
namespace {

// log_buf before 5.10 (kernel/printk/printk.c of 5.9): records from log_first_idx to log_next_idx, each with
// its text and its dictionary behind it. One whose `len` is 0 says that the next is at the beginning.
class PrintkLogReader {
public:
    PrintkLogReader(const PrintkSource& source, PrintkLogLayout layout) : source_(&source), layout_(layout) {}

    Result<KernelLog> read(VirtualAddress pointer) {
        const auto start = TRY(source_->space.read_value<std::uint64_t>(pointer));
        const auto size = TRY(number("log_buf_len"));
        std::uint64_t at = TRY(number("log_first_idx"));
        const auto end = TRY(number("log_next_idx"));
        if (!plausible_pointer(start) || size > max_log_snapshot || at >= size || end >= size) {
            return fail(Errc::bad_data, "the log at " + hex(start) + " of " + std::to_string(size) +
                                            " bytes has its records from " + std::to_string(at) + " to " +
                                            std::to_string(end));
        }
        buffer_.resize(size);
        if (const auto lost = read_what_is_there(source_->space, VirtualAddress{start}, buffer_)) {
            log_.missing.push_back(std::to_string(lost) + " bytes of the log cannot be read");
        }
        bool wrapped = at <= end;
        while (at != end) {
            const auto next = take(at);
            if (!next) return say(at);
            if (*next <= at) {
                if (std::exchange(wrapped, true)) return say(at);
            }
            // The end can be jumped over by a record that is longer than it should be.
            if (wrapped && at < end && *next > end) return say(at);
            at = *next;
        }
        number_records();
        return std::move(log_);
    }

private:
    [[nodiscard]] Result<std::uint32_t> number(std::string_view name) const {
        const auto address = printk_variable(*source_, name);
        if (!address) return fail(Errc::not_found, "no symbol " + std::string{name});
        return source_->space.read_value<std::uint32_t>(*address);
    }

    // Takes the record at `at` and says where the next one is; nothing if it is none.
    std::optional<std::uint64_t> take(std::uint64_t at) {
        const auto bytes = ConstBytes{buffer_}.subspan(at);
        const auto len = layout_.len.in(bytes);
        if (!len) return std::nullopt;
        if (*len == 0) return 0;
        const auto text_len = layout_.text_len.in(bytes).value_or(0);
        const auto dict_len = layout_.dict_len.in(bytes).value_or(0);
        if (*len > bytes.size() || *len < layout_.size || text_len + dict_len > *len - layout_.size) {
            return std::nullopt;
        }
        auto record = log_record(bytes.first(*len), layout_);
        record.text = as_text(bytes.subspan(layout_.size, text_len));
        log_.records.push_back(std::move(record));
        return at + *len == buffer_.size() ? 0 : at + *len;
    }

    Result<KernelLog> say(std::uint64_t at) {
        log_.missing.push_back("the records from offset " + std::to_string(at) +
                               " of the log on: what is there is none, or changed while it was read");
        number_records();
        return std::move(log_);
    }

    void number_records() {
        const auto address = printk_variable(*source_, "log_first_seq");
        const auto first = address ? source_->space.read_value<std::uint64_t>(*address) : 0;
        for (std::size_t i = 0; i < log_.records.size(); ++i)
            log_.records[i].sequence = first.value_or(0) + i;
    }

    const PrintkSource* source_;
    PrintkLogLayout layout_;
    std::vector<std::byte> buffer_;
    KernelLog log_;
};

}  // namespace

Result<KernelLog> read_printk_log(const PrintkSource& source, VirtualAddress pointer) {
    return PrintkLogReader{source, printk_log_layout(source.btf, source.vmcoreinfo)}.read(pointer);
}

Result<KernelLog> read_kernel_log(const PrintkSource& source) {
    auto log = [&]() -> Result<KernelLog> {
        if (const auto ring = printk_variable(source, "prb")) return read_printk_ring(source, *ring);
        if (const auto buffer = printk_variable(source, "log_buf")) return read_printk_log(source, *buffer);
        return fail(Errc::not_found, "no symbol prb or log_buf, neither in kallsyms nor in VMCOREINFO");
    }();
    if (!log) return fail(std::move(log).error().with_context("reading the kernel's log"));
    return log;
}

}  // namespace exo::os
