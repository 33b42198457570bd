// A C++ program of the guest's, the same at each run: it does nothing until a debugger sets `open_doors`, and
// then serves customers in turn. Two more threads wait for what never comes.
#include <unistd.h>
#include <condition_variable>
#include <cstdio>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

volatile int open_doors = 0;
thread_local int customers_seen = 0;

struct Order {
    std::string customer;
    std::vector<int> prices;
    std::optional<int> discount;
};

class Shop {
public:
    void take(std::string customer, std::vector<int> prices, std::optional<int> discount) {
        auto order = std::make_unique<Order>(Order{customer, std::move(prices), discount});
        orders_.emplace(std::move(customer), std::move(order));
    }

    int total(const Order& order) {
        int sum = 0;
        for (const int price : order.prices) sum += price;
        if (order.discount) sum -= *order.discount;
        return sum;
    }

    void serve() {
        for (const auto& [customer, order] : orders_) {
            ++customers_seen;
            const int sum = total(*order);
            taken_ += sum;
            ++served_;
        }
    }

    void wait_for_closing() {
        std::unique_lock<std::mutex> lock{mutex_};
        closing_.wait(lock);
    }

private:
    std::map<std::string, std::unique_ptr<Order>> orders_;
    long taken_ = 0;
    unsigned served_ = 0;
    std::mutex mutex_;
    std::condition_variable closing_;
};

Shop shop;

void wait_for_night() {
    for (;;) pause();
}

int main() {
    shop.take("Ada", {3, 4, 5}, std::nullopt);
    shop.take("Grace", {100, 20}, 7);
    shop.take("Linus", {}, std::nullopt);
    std::thread closing{[] { shop.wait_for_closing(); }};
    std::thread night{wait_for_night};
    while (open_doors == 0) usleep(500000);  // where a debugger finds it
    for (;;) {
        shop.serve();
        usleep(10000);
    }
}
