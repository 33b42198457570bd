// Registers and their description.
#include <algorithm>

#include "rsp/hex.h"
#include "rsp/stop_reply.h"
#include "stub/handlers/handlers.h"

namespace exo::stub::handlers {
namespace {

// g, G, p and P name their thread in lldb (`;thread:TID;`), else it is the one that Hg selected.
Result<const Thread*> addressed(Session& session, std::string_view& arguments) {
    if (session.thread_suffix) {
        if (const auto id = rsp::cut_thread_suffix(arguments)) return session.thread(id);
    }
    return session.general();
}

Result<void> write_to(Session& session, const Thread& thread, const RegisterSet& values,
                      std::span<const RegisterNumber> numbers) {
    if (session.selected_frame() != nullptr) return fail(Errc::denied, "a trace frame cannot be written");
    return session.write_registers(thread, values, numbers);
}

std::string target_xml(const RegisterLayout& layout) {
    std::string xml =
        "<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\"><target><architecture>";
    xml.append(layout.architecture).append("</architecture>");
    if (!layout.osabi.empty()) xml.append("<osabi>").append(layout.osabi).append("</osabi>");
    for (std::size_t feature = 0; feature < layout.features.size(); ++feature) {
        xml.append("<feature name=\"").append(layout.features[feature].name).append("\">");
        xml += layout.features[feature].types;
        for (std::size_t number = 0; number < layout.registers.size(); ++number) {
            const RegisterInfo& info = layout.registers[number];
            if (info.feature != feature) continue;
            xml.append("<reg name=\"").append(info.name).append("\" bitsize=\"");
            xml.append(std::to_string(info.bits)).append("\" type=\"").append(info.type);
            xml.append("\" regnum=\"").append(std::to_string(number)).append("\"");
            if (!info.group.empty()) xml.append(" group=\"").append(info.group).append("\"");
            if (!info.save_restore) xml += " save-restore=\"no\"";
            if (info.dwarf >= 0)
                xml.append(" dwarf_regnum=\"").append(std::to_string(info.dwarf)).append("\"");
            if (!info.generic.empty()) xml.append(" generic=\"").append(info.generic).append("\"");
            if (!info.alt_name.empty()) xml.append(" altname=\"").append(info.alt_name).append("\"");
            xml += "/>";
        }
        xml += "</feature>";
    }
    xml += "</target>";
    // A trace file has it line by line, and gdb reads lines of less than 1000 characters
    // (gdb/tracefile-tfile.c).
    for (auto at = xml.find("><"); at != xml.npos; at = xml.find("><", at)) xml.insert(at + 1, 1, '\n');
    return xml;
}

}  // namespace

void append_register(std::string& out, const RegisterSet& registers, RegisterNumber number) {
    if (registers.available(number)) {
        rsp::append_hex(out, registers.bytes(number));
    } else {
        out.append(registers.layout().registers[number].bits / 4U, 'x');
    }
}

void append_expedited(rsp::StopReply& reply, Session& session, const Thread& thread) {
    const auto registers = session.registers(thread);
    if (!registers) return;
    for (const RegisterNumber number : registers->layout().expedited) {
        if (!registers->available(number)) continue;  // `xx` here is an error to gdb (hex2bin)
        std::string value;
        append_register(value, *registers, number);
        reply.registers.emplace_back(number, std::move(value));
    }
}

Result<Reply> read_registers(Session& session, std::string_view arguments) {
    const TraceFrame* frame = session.selected_frame();
    const RegisterSet registers = frame != nullptr
                                      ? frame->registers_or_pc(session.machine.layout())
                                      : TRY(session.all_registers(*TRY(addressed(session, arguments))));
    std::string reply;
    const auto count = static_cast<RegisterNumber>(registers.layout().registers.size());
    for (RegisterNumber number = 0; number < count; ++number) {
        append_register(reply, registers, number);
    }
    return text(std::move(reply));
}

// Writes what differs: a client sends back all that it read.
Result<Reply> write_registers(Session& session, std::string_view arguments) {
    const Thread* thread = TRY(addressed(session, arguments));
    const auto request = rsp::WriteRegisters::parse(arguments);
    if (!request) return fail(Errc::bad_request, "malformed registers");
    RegisterSet registers = TRY(session.all_registers(*thread));
    std::vector<RegisterNumber> changed;
    const auto count = static_cast<RegisterNumber>(registers.layout().registers.size());
    for (RegisterNumber number = 0; number < count; ++number) {
        const RegisterInfo& info = registers.layout().registers[number];
        const std::size_t size = info.bits / 8U;
        if (info.offset + size > request->bytes.size()) break;
        const auto wanted = std::span{request->bytes}.subspan(info.offset, size);
        if (std::ranges::any_of(wanted, [](const auto& byte) { return !byte; })) continue;
        std::vector<std::byte> value(size);
        std::ranges::transform(wanted, value.begin(), [](const auto& byte) { return *byte; });
        if (registers.available(number) && std::ranges::equal(value, registers.bytes(number))) continue;
        registers.set_bytes(number, value);
        changed.push_back(number);
    }
    if (changed.empty()) return ok();
    CHECK_OK(write_to(session, *thread, registers, changed));
    return ok();
}

// An unknown number is an error, not the empty packet: that would end all use of `p`.
Result<Reply> read_register(Session& session, std::string_view arguments) {
    const TraceFrame* frame = session.selected_frame();
    const Thread* thread = TRY(addressed(session, arguments));
    const auto request = rsp::ReadRegister::parse(arguments);
    if (!request) return fail(Errc::bad_request, "malformed register number");
    const RegisterLayout& layout = frame != nullptr ? session.machine.layout() : session.layout_of(*thread);
    if (request->number >= layout.registers.size()) {
        return fail(Errc::bad_request, "no register has number " + std::to_string(request->number));
    }
    const auto number = static_cast<RegisterNumber>(request->number);
    std::string reply;
    if (frame != nullptr) {
        append_register(reply, frame->registers_or_pc(layout), number);
    } else if (const auto quick = TRY(session.registers(*thread)); quick.available(number)) {
        append_register(reply, quick, number);
    } else {
        append_register(reply, TRY(session.all_registers(*thread)), number);
    }
    return text(std::move(reply));
}

// What is there already need not be written: gdb puts all registers back after a call of a function, also
// those that the machine takes no other value for.
Result<Reply> write_register(Session& session, std::string_view arguments) {
    const Thread* thread = TRY(addressed(session, arguments));
    const auto request = rsp::WriteRegister::parse(arguments);
    if (!request) return fail(Errc::bad_request, "malformed register write");
    const RegisterLayout& layout = session.layout_of(*thread);
    if (request->number >= layout.registers.size() ||
        request->bytes.size() != layout.registers[request->number].bits / 8U) {
        return fail(Errc::bad_request, "no register of that number and size");
    }
    const auto number = static_cast<RegisterNumber>(request->number);
    RegisterSet registers = TRY(session.registers(*thread));
    if (!registers.available(number)) registers = TRY(session.all_registers(*thread));
    if (registers.available(number) && std::ranges::equal(request->bytes, registers.bytes(number)))
        return ok();
    registers.set_bytes(number, request->bytes);
    CHECK_OK(write_to(session, *thread, registers, std::span{&number, 1}));
    return ok();
}

Result<Reply> transfer_features(Session& session, const rsp::TransferRead& request) {
    if (request.annex != "target.xml") return fail(Errc::not_found, "there is only target.xml");
    return text(rsp::xfer_slice(target_xml(session.layout()), request.offset, request.length));
}

}  // namespace exo::stub::handlers
