/* Let OpenVINO's plugin library list this machine's CPU, whoever made it.
 *
 * OpenVINO runs on every x86-64 CPU. Its plugin library for ONNX Runtime lists a CPU only where ONNX Runtime's record of
 * it has Intel's vendor id. This library stands before it: ONNX Runtime registers this one, which hands out the factories
 * of OpenVINO's and replaces one of their functions, GetSupportedDevices. That asks OpenVINO's library as it is; where it
 * lists no CPU, it is asked again about a device made by the public OrtEpApi::CreateHardwareDevice, which is the CPU's
 * record with Intel's vendor id. Where OpenVINO's library lists a CPU by itself, nothing else happens.
 *
 * The process must have loaded OpenVINO's library before (`Provider.preload`); it is found among what is loaded.
 *
 * ONNX Runtime's tables of functions only ever grow, so a function's place in one is part of its public interface. The
 * places used here are declared below, as in onnxruntime_c_api.h and onnxruntime_ep_c_api.h of ONNX Runtime 1.24.
 *
 * build_adapter.py builds it, byte for byte the same on every machine. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define EXPORTED __attribute__((visibility("default")))
#define OPENVINO "/libonnxruntime_providers_openvino_plugin.so"

enum { API_VERSION = 24, FAIL = 1, CPU = 0, INTEL = 0x8086 };

/* Places in OrtApi, in OrtEpApi, and in OrtEpFactory, counted in pointers. */
enum { CREATE_STATUS = 0, DEVICE_TYPE = 307, VENDOR_ID = 308, VENDOR = 309, DEVICE_ID = 310, METADATA = 311,
       HARDWARE_OF = 316, GET_EP_API = 317 };
enum { CREATE_HARDWARE_DEVICE = 16, RELEASE_HARDWARE_DEVICE = 17 };
enum { GET_SUPPORTED_DEVICES = 3 };

typedef struct Status Status;
typedef struct Device Device;     /* OrtHardwareDevice */
typedef struct EpDevice EpDevice; /* OrtEpDevice: a device that a factory takes */
typedef void *const *Api;
typedef void **Factory; /* OrtEpFactory */
typedef struct { Api (*get_api)(uint32_t version); const char *(*version)(void); } ApiBase;

typedef Status *CreateFactories(const char *, const ApiBase *, const void *, Factory *, size_t, size_t *);
typedef Status *ReleaseFactory(Factory);
typedef Status *SupportedDevices(Factory, const Device *const *, size_t, EpDevice **, size_t, size_t *);
typedef Status *CreateStatus(int, const char *);
typedef Status *CreateDevice(int, uint32_t, uint32_t, const char *, const void *, Device **);

typedef struct Adapted {
  Factory factory;
  SupportedDevices *supported; /* OpenVINO's own */
  Api api;
  Device *shown; /* the CPU with Intel's vendor id; NULL where none was needed */
  struct Adapted *next;
} Adapted;

static Adapted *adapted;
static atomic_flag busy = ATOMIC_FLAG_INIT;

static void lock(void) { while (atomic_flag_test_and_set_explicit(&busy, memory_order_acquire)) {} }
static void unlock(void) { atomic_flag_clear_explicit(&busy, memory_order_release); }

static int ask_int(Api api, int place, const Device *device) { return ((int (*)(const Device *))api[place])(device); }

static const void *ask(Api api, int place, const void *of) { return ((const void *(*)(const void *))api[place])(of); }

static Status *failure(Api api, const char *text) { return ((CreateStatus *)api[CREATE_STATUS])(FAIL, text); }

static int is_openvino(struct dl_phdr_info *loaded, size_t size, void *found) {
  (void)size;
  if (!loaded->dlpi_name || !strstr(loaded->dlpi_name, OPENVINO)) return 0;
  *(const char **)found = loaded->dlpi_name;
  return 1;
}

/* Return a function of OpenVINO's library, which this process has loaded; NULL where it has not. */
static void *openvino(const char *function) {
  const char *path = NULL;
  dl_iterate_phdr(is_openvino, &path);
  void *library = path ? dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD) : NULL;
  return library ? dlsym(library, function) : NULL;
}

static Adapted *find(Factory factory) {
  lock();
  Adapted *found = adapted;
  while (found && found->factory != factory) found = found->next;
  unlock();
  return found;
}

static int lists_cpu(Api api, EpDevice *const *listed, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (ask_int(api, DEVICE_TYPE, ask(api, HARDWARE_OF, listed[i])) == CPU) return 1;
  return 0;
}

static const Device *cpu_of(Api api, const Device *const *devices, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (ask_int(api, DEVICE_TYPE, devices[i]) == CPU) return devices[i];
  return NULL;
}

/* Make the record of a CPU anew, with Intel's vendor id. */
static Status *show(Adapted *this, const Device *cpu) {
  Api ep = ((Api (*)(void))this->api[GET_EP_API])();
  return ((CreateDevice *)ep[CREATE_HARDWARE_DEVICE])(
      CPU, INTEL, (uint32_t)ask_int(this->api, DEVICE_ID, cpu), ask(this->api, VENDOR, cpu),
      ask(this->api, METADATA, cpu), &this->shown);
}

static Status *supported_devices(Factory factory, const Device *const *devices, size_t count, EpDevice **listed,
                                 size_t most, size_t *found) {
  Adapted *this = find(factory);
  Status *status = this->supported(factory, devices, count, listed, most, found);
  const Device *cpu = status ? NULL : cpu_of(this->api, devices, count);
  if (!cpu || *found >= most || lists_cpu(this->api, listed, *found)) return status;
  if (!this->shown && (status = show(this, cpu))) return status;
  size_t more = 0;
  const Device *shown = this->shown;
  status = this->supported(factory, &shown, 1, listed + *found, most - *found, &more);
  *found += status ? 0 : more;
  return status;
}

static int adapt(Factory factory, Api api) {
  Adapted *new = calloc(1, sizeof *new);
  if (!new) return 0;
  *new = (Adapted){.factory = factory, .supported = (SupportedDevices *)factory[GET_SUPPORTED_DEVICES], .api = api};
  lock();
  new->next = adapted;
  adapted = new;
  unlock();
  factory[GET_SUPPORTED_DEVICES] = (void *)supported_devices;
  return 1;
}

EXPORTED Status *CreateEpFactories(const char *name, const ApiBase *base, const void *logger, Factory *factories,
                                   size_t most, size_t *count) {
  Api api = base->get_api(API_VERSION);
  CreateFactories *create = (CreateFactories *)openvino("CreateEpFactories");
  if (!api) return failure(base->get_api(1), "epkit's adapter for OpenVINO needs ONNX Runtime 1.24 or newer");
  if (!create) return failure(api, "OpenVINO's plugin library is not loaded; epkit's adapter needs it loaded first");
  Status *status = create(name, base, logger, factories, most, count);
  for (size_t i = 0; !status && i < *count; i++)
    if (!adapt(factories[i], api)) return failure(api, "no memory for epkit's adapter for OpenVINO");
  return status;
}

EXPORTED Status *ReleaseEpFactory(Factory factory) {
  lock();
  Adapted **at = &adapted;
  while (*at && (*at)->factory != factory) at = &(*at)->next;
  Adapted *this = *at;
  if (this) *at = this->next;
  unlock();
  if (this) factory[GET_SUPPORTED_DEVICES] = (void *)this->supported;
  Status *status = ((ReleaseFactory *)openvino("ReleaseEpFactory"))(factory);
  if (this && this->shown) {
    Api ep = ((Api (*)(void))this->api[GET_EP_API])();
    ((void (*)(Device *))ep[RELEASE_HARDWARE_DEVICE])(this->shown);
  }
  free(this);
  return status;
}
