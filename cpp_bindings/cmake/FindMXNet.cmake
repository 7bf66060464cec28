# Finds MXNet in the wheel of a Python interpreter, without importing it.
#
#   MXNet_INCLUDE_DIR  the C headers
#   MXNet_LIBRARY      libmxnet.so; it is opened at run time, not linked
#
# -DPython3_EXECUTABLE=... chooses the interpreter, -DMXNet_ROOT=... the directory of the package itself.

if(NOT MXNet_ROOT)
  find_package(Python3 COMPONENTS Interpreter REQUIRED)
  execute_process(
    COMMAND "${Python3_EXECUTABLE}" -c
            "import importlib.util as u; s = u.find_spec('mxnet'); print(s.submodule_search_locations[0] if s else '')"
    OUTPUT_VARIABLE MXNet_ROOT
    OUTPUT_STRIP_TRAILING_WHITESPACE)
endif()

# An environment that was made anew may have moved.
foreach(entry MXNet_INCLUDE_DIR MXNet_LIBRARY)
  if(${entry} AND NOT EXISTS "${${entry}}")
    unset(${entry} CACHE)
  endif()
endforeach()

find_path(MXNet_INCLUDE_DIR mxnet/c_api.h HINTS "${MXNet_ROOT}/include" NO_DEFAULT_PATH)
find_file(MXNet_LIBRARY libmxnet.so HINTS "${MXNet_ROOT}" NO_DEFAULT_PATH)
mark_as_advanced(MXNet_INCLUDE_DIR MXNet_LIBRARY)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(
  MXNet
  REQUIRED_VARS MXNet_LIBRARY MXNet_INCLUDE_DIR
  REASON_FAILURE_MESSAGE "pip install mxnet==1.9.1 into the environment of ${Python3_EXECUTABLE}, or set MXNet_ROOT")
