-- Orthanc sends each new radiograph to the node, and nothing that the node made.
-- "clarity" is the node's name under DicomModalities of orthanc.json.
function OnStoredInstance(instanceId, tags, metadata, origin)
   local isRadiograph = tags['Modality'] == 'CR' or tags['Modality'] == 'DX'
   if isRadiograph and tags['Manufacturer'] ~= 'clarity_hf' then
      SendToModality(instanceId, 'clarity')
   end
end
