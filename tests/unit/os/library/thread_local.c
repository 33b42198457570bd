// A library whose thread-local variables no thread has before it looks at one: -ftls-model=global-dynamic.
__thread long big[1000] = {1, 2, 3};

long* look_at_it(void) { return &big[1]; }
