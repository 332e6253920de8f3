# No compiler is needed: nothing of the extension is compiled.
foreach(language C CXX)
  set(CMAKE_${language}_COMPILER ${CMAKE_COMMAND})
  set(CMAKE_${language}_COMPILER_FORCED TRUE)
endforeach()
