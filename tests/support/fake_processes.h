// What a made-up kernel tells of its processes: texts that the test writes.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "os-awareness/os.h"

namespace exo::test {

class FakeProcesses final : public os::Processes {
public:
    struct File {
        std::string content;
        std::uint64_t absent = UINT64_MAX;  // from there on it is not in memory
    };
    std::map<std::string, std::string> texts, links;  // by "70/maps", of a task
    std::map<std::string, File> files;                // by "/bin/program"; one of any process
    std::string executable_path = "/bin/program";

    [[nodiscard]] bool told() const { return !texts.empty() || !links.empty() || !files.empty(); }

    Result<std::string> proc_file(const os::Task& task, std::string_view name) override {
        return find(texts, task, name);
    }
    Result<std::string> proc_link(const os::Task& task, std::string_view name) override {
        return find(links, task, name);
    }
    Result<std::vector<os::OpenDescriptor>> open_files(const os::Task& task) override {
        std::vector<os::OpenDescriptor> open;
        for (std::uint32_t number = 0; number < 8; ++number) {
            if (auto name = find(links, task, "fd/" + std::to_string(number)))
                open.push_back({number, *name});
        }
        return open;
    }
    Result<std::unique_ptr<AddressSpace>> readable_space(const os::Task& /*task*/) override {
        return fail(Errc::bad_address, "not in memory, says the test");
    }
    Result<bool> is_private_page(PhysicalAddress /*page*/) override { return false; }
    Result<os::FileId> find_file(const os::Task& /*task*/, std::string_view path) override {
        const auto it = files.find(std::string{path});
        if (it == files.end()) return fail(Errc::not_found, "no such file");
        return os::FileId{.number = static_cast<std::uint64_t>(std::distance(files.begin(), it))};
    }
    Result<os::FileId> executable(const os::Task& task) override { return find_file(task, executable_path); }
    Result<std::uint64_t> file_size(const os::FileId& file) override { return at(file).content.size(); }
    Result<std::size_t> read_file(const os::FileId& file, std::uint64_t offset, MutableBytes out) override {
        const auto& [content, absent] = at(file);
        if (offset >= content.size()) return std::size_t{0};
        if (offset >= absent) return fail(Errc::bad_address, "not in memory: page of the file");
        const auto end = std::min<std::uint64_t>({content.size(), absent, offset + out.size()});
        std::memcpy(out.data(), content.data() + offset, end - offset);
        return static_cast<std::size_t>(end - offset);
    }

private:
    [[nodiscard]] const File& at(const os::FileId& file) const {
        return std::next(files.begin(), static_cast<std::ptrdiff_t>(file.number))->second;
    }
    static Result<std::string> find(const std::map<std::string, std::string>& in, const os::Task& task,
                                    std::string_view name) {
        const auto it = in.find(std::to_string(task.tid) + "/" + std::string{name});
        if (it == in.end()) return fail(Errc::not_found, "no " + std::string{name} + " can be told");
        return it->second;
    }
};

}  // namespace exo::test
