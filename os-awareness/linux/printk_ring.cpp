// struct printk_ringbuffer (kernel/printk/printk_ringbuffer.{h,c}, from 5.10 on): a ring of descriptors, a
// ring of struct printk_info beside it, and a ring of texts.
#include "os-awareness/linux/printk_memory.h"

namespace exo::os {
namespace {

// A descriptor's state_var: the state above its id.
constexpr unsigned state_shift = 62;
constexpr std::uint64_t id_mask = (std::uint64_t{1} << state_shift) - 1;
enum class DescState : std::uint8_t { reserved, committed, finalized, reusable };

constexpr unsigned max_bits = 31;  // LOG_BUF_LEN_MAX is 2^31

// Logical positions (prb_data_blk_lpos) of records without a block: odd ones.
constexpr std::uint64_t empty_line = 3;  // EMPTY_LINE_LPOS, NO_LPOS until 6.9: the text is empty
constexpr std::uint64_t block_id_bytes = 8;

class PrintkRingReader {
public:
    PrintkRingReader(const PrintkSource& source, PrintkRingLayout layout)
        : space_(&source.space), layout_(layout) {}

    Result<KernelLog> read(VirtualAddress pointer) {
        CHECK_OK(read_ring(VirtualAddress{TRY(space_->read_value<std::uint64_t>(pointer))}));
        // In this order: what a descriptor says holds for what is read after it, if it still says so then.
        const auto descs = read_array(descs_, layout_.desc_size);
        const auto infos = read_array(infos_, layout_.size);
        if (data_size_ <= max_log_snapshot) {
            data_.resize(data_size_);
            lost_bytes_ += read_what_is_there(*space_, VirtualAddress{data_address_}, data_);
        }
        std::vector<Taken> taken;
        for (std::uint64_t i = 0; i < count_; ++i) {
            take(i, element(descs, i, layout_.desc_size), element(infos, i, layout_.size), taken);
        }
        const auto after = read_array(descs_, layout_.desc_size);
        for (auto& [place, record] : taken) {
            if (!has_text(element(after, place, layout_.desc_size), id_of(place))) {
                ++overwritten_;
            } else {
                log_.records.push_back(std::move(record));
            }
        }
        say_what_is_missing();
        return std::move(log_);
    }

private:
    struct Taken {
        std::uint64_t place = 0;
        LogRecord record;
    };

    Result<void> read_ring(VirtualAddress address) {
        if (!plausible_pointer(raw(address))) {
            return fail(Errc::bad_data, "prb points to " + hex(address));
        }
        std::vector<std::byte> ring(layout_.ring_size);
        CHECK_OK(space_->read(address, ring));
        const auto number = [&](const Field& field) { return field.in(ring).value_or(0); };
        const auto count_bits = number(layout_.count_bits);
        const auto size_bits = number(layout_.size_bits);
        descs_ = number(layout_.descs);
        infos_ = number(layout_.infos);
        data_address_ = number(layout_.data);
        if (count_bits > max_bits || size_bits > max_bits || !plausible_pointer(descs_) ||
            !plausible_pointer(infos_) || !plausible_pointer(data_address_)) {
            return fail(Errc::bad_data, "at " + hex(address) + " is no printk_ringbuffer: 2^" +
                                            std::to_string(count_bits) + " descriptors at " + hex(descs_) +
                                            ", 2^" + std::to_string(size_bits) + " bytes at " +
                                            hex(data_address_));
        }
        ring_count_ = std::uint64_t{1} << count_bits;
        data_size_ = std::uint64_t{1} << size_bits;
        choose_records(number(layout_.tail_id) & id_mask, number(layout_.head_id) & id_mask);
        return {};
    }

    void choose_records(std::uint64_t tail, std::uint64_t head) {
        count_ = ((head - tail) & id_mask) + 1;
        const auto most = std::min(
            {ring_count_, max_log_records, max_log_snapshot / std::max(layout_.desc_size, layout_.size)});
        if (count_ > ring_count_) {
            log_.missing.push_back("head_id and tail_id of the log are " + std::to_string(count_ - 1) +
                                   " apart, and it has " + std::to_string(ring_count_) + " descriptors");
        } else if (count_ > most) {
            log_.missing.push_back("the oldest " + std::to_string(count_ - most) + " records: more than " +
                                   std::to_string(most) + " are not read");
        }
        count_ = std::min(count_, most);
        first_id_ = (head - (count_ - 1)) & id_mask;
    }

    [[nodiscard]] std::uint64_t id_of(std::uint64_t place) const { return (first_id_ + place) & id_mask; }

    // The chosen records' elements of one of the two arrays, which may go round its end.
    std::vector<std::byte> read_array(std::uint64_t address, std::uint32_t size) {
        std::vector<std::byte> bytes(count_ * size);
        const auto first = first_id_ & (ring_count_ - 1);
        const auto before_end = std::min(count_, ring_count_ - first) * size;
        const MutableBytes all{bytes};
        lost_bytes_ +=
            read_what_is_there(*space_, VirtualAddress{address + first * size}, all.first(before_end));
        lost_bytes_ += read_what_is_there(*space_, VirtualAddress{address}, all.subspan(before_end));
        return bytes;
    }

    static ConstBytes element(const std::vector<std::byte>& bytes, std::uint64_t place, std::uint32_t size) {
        return ConstBytes{bytes}.subspan(place * size, size);
    }

    // Committed or finalized: whole. The first of them may still be added to, and is of use after a panic.
    [[nodiscard]] bool has_text(ConstBytes desc, std::uint64_t id) const {
        const auto value = layout_.state.in(desc).value_or(0);
        const auto state = static_cast<DescState>(value >> state_shift);
        return (value & id_mask) == id && (state == DescState::committed || state == DescState::finalized);
    }

    void take(std::uint64_t place, ConstBytes desc, ConstBytes info, std::vector<Taken>& taken) {
        const auto id = id_of(place);
        const auto value = layout_.state.in(desc).value_or(0);
        if (!has_text(desc, id)) {
            const auto state = static_cast<DescState>(value >> state_shift);
            // What is reusable has had its text overwritten: it is no part of the log any more.
            if ((value & id_mask) == id && state == DescState::reserved) ++unfinished_;
            if ((value & id_mask) != id) ++overwritten_;
            return;
        }
        auto text = text_of(id, layout_.begin.in(desc).value_or(0), layout_.next.in(desc).value_or(0),
                            layout_.text_len.in(info).value_or(0));
        if (!text) {
            ++without_text_;
            return;
        }
        auto record = log_record(info, layout_);
        record.sequence = layout_.sequence.in(info).value_or(0);
        // Blocks do not overlap in a log that is one.
        if (text->size() > data_size_ - text_bytes_) {
            ++without_text_;
            return;
        }
        text_bytes_ += text->size();
        record.text = std::move(*text);
        taken.push_back({place, std::move(record)});
    }

    // A block does not go round the end of the ring: where it would, it is at the beginning, and `next` in
    // the round after. One that ends just at the end is left there since 6.18, when `next` is the beginning.
    std::optional<std::string> text_of(std::uint64_t id, std::uint64_t begin, std::uint64_t next,
                                       std::uint64_t length) {
        if (begin == empty_line && next == empty_line) return std::string{};
        if ((begin & 1) != 0 || (next & 1) != 0) return std::nullopt;  // FAILED_LPOS: no room for it
        const auto index = [&](std::uint64_t position) { return position & (data_size_ - 1); };
        const auto round = [&](std::uint64_t position) { return position & ~(data_size_ - 1); };
        std::uint64_t at = index(begin);
        std::uint64_t size = next - begin;
        if (round(begin) + data_size_ == round(next) && index(next) != 0) {
            at = 0;
            size = index(next);
        } else if (round(begin) != round(next) && begin + size != round(begin) + data_size_) {
            return std::nullopt;
        }
        if (size <= block_id_bytes || size > data_size_ - at) return std::nullopt;
        std::string block(std::min(size, block_id_bytes + length), '\0');
        if (!read_data(at, std::as_writable_bytes(std::span{block}))) return std::nullopt;
        if (Field{0, block_id_bytes}.in(std::as_bytes(std::span{block})) != id) return std::nullopt;
        return block.substr(block_id_bytes);
    }

    bool read_data(std::uint64_t at, MutableBytes out) {
        if (data_.empty()) return space_->read(VirtualAddress{data_address_ + at}, out).has_value();
        std::copy_n(data_.begin() + static_cast<std::ptrdiff_t>(at), out.size(), out.begin());
        return true;
    }

    void say_what_is_missing() {
        const auto say = [&](std::uint64_t count, std::string_view what) {
            if (count == 0) return;
            log_.missing.push_back(std::to_string(count) + (count == 1 ? " record" : " records") +
                                   std::string{what});
        };
        say(unfinished_, ": being written");
        say(overwritten_, ": overwritten while the log was read, or their descriptors are broken");
        say(without_text_, ": their text is not where their descriptors say");
        if (lost_bytes_ != 0) {
            log_.missing.push_back(std::to_string(lost_bytes_) + " bytes of the log cannot be read");
        }
    }

    AddressSpace* space_;
    PrintkRingLayout layout_;
    std::uint64_t descs_ = 0, infos_ = 0, data_address_ = 0;
    std::uint64_t ring_count_ = 0, data_size_ = 0;
    std::uint64_t first_id_ = 0, count_ = 0;  // of the records that are looked at
    std::vector<std::byte> data_;             // empty: too much of it to be read at once
    std::uint64_t text_bytes_ = 0;
    std::uint64_t unfinished_ = 0, overwritten_ = 0, without_text_ = 0, lost_bytes_ = 0;
    KernelLog log_;
};

}  // namespace

Result<KernelLog> read_printk_ring(const PrintkSource& source, VirtualAddress pointer) {
    return PrintkRingReader{source, TRY(printk_ring_layout(source.btf, source.vmcoreinfo))}.read(pointer);
}

}  // namespace exo::os
