{
  'targets': [
    {
      'target_name': 'tidemark',
      'defines': ['NAPI_VERSION=9',
        # In an environment that is ending napi_throw fails, and node-addon-api would throw out of the callback: std::terminate.
        'NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS'],
      'conditions': [
        ['OS=="linux"', {
          'dependencies': ["<!(node -p \"require('node-addon-api').targets\"):node_addon_api_except"],
          'sources': [
            'addon.cc',
            'args.cc',
            'assemble.cc',
            'cleanup.cc',
            'copy.cc',
            'crc32c.cc',
            'errors.cc',
            'exiting.cc',
            'fill.cc',
            'lazy.cc',
            'library.cc',
            'mapping.cc',
            'memory.cc',
            'memory_api.cc',
            'misc_api.cc',
            'pagemap.cc',
            'pager.cc',
            'pool.cc',
            'probe.cc',
            'region.cc',
            'region_api.cc',
            'residence.cc',
            'residence_api.cc',
            'reset.cc',
            'ring.cc',
            'shadow.cc',
            'shadow_api.cc',
            'shared_file.cc',
            'store_lock.cc',
            'uffd_api.cc',
            'uffd_maps.cc',
            'uffd_memory.cc',
            'uffd_object.cc',
            'uffd_pump.cc',
            'uffd_ranges.cc',
            'uffd_reader.cc',
            'uffd_verbs.cc',
            'userfault.cc',
          ],
          'cflags': ['-Wall', '-Wextra', '-Wno-cast-function-type', '-fvisibility=hidden'],
          'cflags!': ['-O2', '-Os'],
          'cflags_cc': ['-O3'],
          # nodelete: Node closes an addon's library with the last worker that loaded it, and the copy pool's
          # threads still run its code then.
          'ldflags': ['-pthread', '-Wl,-z,nodelete'],
        }, {
          # Elsewhere the package installs too, and requiring the addon says why it cannot work.
          'sources': ['unsupported.c'],
        }],
      ],
    },
  ],
}
